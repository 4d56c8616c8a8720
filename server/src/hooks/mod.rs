//! Incoming webhooks: which senders are believed, and what becomes of what they send.
//!
//! [`sender`] knows how deliveries are signed, [`template`] makes arguments and notes out of a payload. Here they are
//! put together from the configuration, so that a delivery and the time are all that is needed to say what is to be done;
//! `http/hooks.rs` does it. A delivery's id, with the name of its hook, is the key of its job: whoever sends it again is
//! answered by the same job.

mod sender;
mod template;

pub(crate) use sender::{KINDS, Sender};
pub(crate) use template::{Delivery, Template, check_pointer};

use crate::auth::read_secret;
use crate::config::{self, Config};
use arc_swap::ArcSwap;
use minium_protocol::{EnqueueRequest, ID_BYTES_MAX, JobOptions, Unique};
use secrecy::ExposeSecret;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The hooks that are in force, swapped while the node runs.
pub(crate) struct Hooks(ArcSwap<Table>);

/// Hooks by name.
pub(crate) type Table = BTreeMap<String, Arc<Hook>>;

/// One hook, ready to judge deliveries.
#[derive(Debug)]
pub(crate) struct Hook {
    /// Its name.
    pub(crate) name: String,
    /// Who sends.
    pub(crate) sender: Sender,
    task: String,
    options: JobOptions,
    events: Vec<String>,
    when: Vec<(String, Value)>,
    args: Option<Template>,
    notes: Option<Template>,
}

/// What becomes of a delivery that is believed.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is this job.
    Job(Box<EnqueueRequest>),
    /// Nothing, and why: senders switch off hooks that answer errors, so this is none.
    Ignored(&'static str),
}

impl Hooks {
    /// With these in force.
    pub(crate) fn new(table: Table) -> Hooks {
        Hooks(ArcSwap::from_pointee(table))
    }

    /// By name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Hook>> {
        self.0.load().get(name).cloned()
    }

    /// Puts others in force.
    pub(crate) fn replace(&self, table: Table) {
        self.0.store(Arc::new(table));
    }
}

/// All hooks of a configuration, with the files that it names. All that is wrong is told at once.
pub(crate) fn build(config: &Config) -> Result<Table, Vec<String>> {
    let (mut table, mut wrong) = (Table::new(), Vec::new());
    for (name, hook) in &config.hooks {
        match Hook::new(name, hook) {
            Ok(hook) => drop(table.insert(name.clone(), Arc::new(hook))),
            Err(what) => wrong.push(format!("hooks.{name}: {what}")),
        }
    }
    if wrong.is_empty() { Ok(table) } else { Err(wrong) }
}

impl Hook {
    fn new(name: &str, hook: &config::Hook) -> Result<Hook, String> {
        // what is missing was refused when the configuration was read
        let kind = hook.kind.as_deref().and_then(Sender::named);
        let mut sender = kind.ok_or_else(|| format!("kind must be {KINDS}"))?;
        for secret in hook.secrets.iter() {
            sender.add(secret.as_bytes())?;
        }
        for file in &hook.secret_files {
            let secret = read_secret(Path::new(file)).map_err(|e| format!("{file} cannot be read: {e}"))?;
            sender.add(secret.expose_secret()).map_err(|what| format!("the secret in {file} {what}"))?;
        }
        let read =
            |json: &Option<config::Json>| json.as_ref().map(|json| Template::read(&json.0)).transpose();
        let when = hook.when.as_ref().and_then(|when| when.0.as_object());
        Ok(Hook {
            name: name.to_owned(),
            sender,
            task: hook.task.clone().unwrap_or_default(),
            options: hook.options(),
            events: hook.events.clone(),
            when: when.into_iter().flatten().map(|(place, value)| (place.clone(), value.clone())).collect(),
            args: read(&hook.args)?,
            notes: read(&hook.notes)?,
        })
    }

    /// What becomes of it. Pure; `body` is the text of the payload.
    pub(crate) fn judge(&self, delivery: Delivery<'_>, body: &RawValue) -> Result<Verdict, String> {
        if !self.events.is_empty() && self.events.iter().all(|event| event != delivery.event) {
            return Ok(Verdict::Ignored("event"));
        }
        let holds = |(place, value): &(String, Value)| delivery.payload.pointer(place) == Some(value);
        if !self.when.iter().all(holds) {
            return Ok(Verdict::Ignored("when"));
        }
        let args = match &self.args {
            Some(template) => template.fill(delivery).to_string(),
            // as it came, to the byte
            None => format!("[{}]", body.get()),
        };
        let args = RawValue::from_string(args).map_err(|error| error.to_string())?;
        let mut request = EnqueueRequest::new(self.task.clone(), args);
        request.options = self.options.clone();
        request.options.key = Some(self.key(delivery.id)?);
        if let Some(Value::Object(notes)) = self.notes.as_ref().map(|notes| notes.fill(delivery)) {
            request.options.notes = notes;
        }
        Ok(Verdict::Job(Box::new(request)))
    }

    /// The key of a delivery's job. No two hooks share one.
    fn key(&self, id: &str) -> Result<String, String> {
        let key = format!("hooks/{}/{id}", self.name);
        let room = ID_BYTES_MAX - (key.len() - id.len());
        match id.len() {
            1.. if key.len() <= ID_BYTES_MAX => Ok(key),
            _ => Err(format!("the id of the delivery must have 1 to {room} bytes")),
        }
    }
}

impl config::Hook {
    /// Of its jobs, but for what each delivery says.
    pub(crate) fn options(&self) -> JobOptions {
        JobOptions {
            queue: self.queue.clone(),
            priority: self.priority,
            attempts: self.attempts,
            delay: self.delay,
            unique: Unique::For(self.window),
            ..JobOptions::default()
        }
    }
}

#[cfg(test)]
mod tests;
