//! The bus: named scenarios against this binary as a node, a bare relay (the floor), and, with `--peers`, the
//! WebSocket listeners of NATS, mosquitto and uWebSockets.
//!
//! Load and server share the machine, so deliveries per second of the *server's* CPU time is the figure to compare.
//! Contenders take turns (A B A B …), each on a fresh server, and shares are taken within a round: what else ran on the
//! machine meanwhile then disturbs all alike. How much that was is told, as foreign CPU.
//!
//! `scenario.rs` is the table, `load.rs` the load.

mod conn;
mod curves;
mod dialect;
mod durable;
mod floor;
mod histogram;
mod link;
mod load;
mod measure;
mod results;
mod scenario;
mod server;
mod svg;
mod tls;
mod wire;

use crate::report::{Figures, circumstances, save, todays};
use crate::{Common, machine};
use anyhow::{Context, bail, ensure};
use results::{Result, Results};
use scenario::{Contender, Load, SCENARIOS, Scenario};
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;

/// Options of `minium bench bus`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Only these scenarios, by name; `--list` tells them
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Tell the scenarios and what they aim at, and measure nothing
    #[arg(long)]
    list: bool,
    /// How long to publish in each round
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// How many rounds; medians are told
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Also measure NATS, mosquitto and uWebSockets; `scripts/get-bench-peers` fetches them
    #[arg(long)]
    peers: bool,
    /// Also measure latency over rate and throughput over subscribers, and draw them where `--save` says
    #[arg(long)]
    curves: bool,
    /// The PostgreSQL for what needs one; it is migrated, and the rows stay in it
    #[arg(long, env = "MINIUM_DATABASE__URL", hide_env_values = true, value_name = "URL")]
    database: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// Runs the bench.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    if floor::is_wanted() {
        return tokio::task::spawn_blocking(floor::serve).await?;
    }
    let scenarios = options.scenarios()?;
    if options.list {
        let mut out = std::io::stdout().lock();
        return scenarios.iter().try_for_each(|s| Ok(writeln!(out, "{:<18} {}", s.name, s.what)?));
    }
    ensure!(options.runs > 0 && options.seconds > 0, "--runs and --seconds must be at least 1");
    machine::raise_open_files();
    let mut all = Vec::new();
    for scenario in scenarios {
        let results = options.measure(scenario).await?;
        if !options.common.json {
            write!(std::io::stdout(), "{}", results::text(&results.json()))?;
        }
        all.push(results);
    }
    let curves = if options.curves { curves::measure(options).await? } else { vec![] };
    options.finish(&all, &curves)?;
    let broken: Vec<_> = all.iter().filter(|r| !r.is_whole()).map(|r| r.scenario.name).collect();
    ensure!(broken.is_empty(), "messages were lost, doubled or out of order in {broken:?}");
    Ok(())
}

impl Options {
    fn scenarios(&self) -> anyhow::Result<Vec<&'static Scenario>> {
        if let Some(name) = self.only.iter().find(|n| SCENARIOS.iter().all(|s| s.name != **n)) {
            let names: Vec<_> = SCENARIOS.iter().map(|s| s.name).collect();
            bail!("there is no scenario {name}; there are {}", names.join(", "));
        }
        let wanted = |s: &&Scenario| self.only.is_empty() || self.only.iter().any(|n| n == s.name);
        Ok(SCENARIOS.iter().filter(wanted).collect())
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    /// Who takes part, with what each is; or why one does not.
    async fn contenders(&self, all: &[Contender]) -> Vec<(Contender, Result)> {
        let mut contenders = Vec::new();
        for contender in all.iter().filter(|c| self.peers || !c.server.is_peer()) {
            let (version, left_out) = match contender.server.version().await {
                Ok(version) => (version, None),
                Err(e) => (String::new(), Some(in_a_line(&e))),
            };
            let result = Result { contender: contender.name, version, rounds: Vec::new(), left_out };
            contenders.push((*contender, result));
        }
        contenders
    }

    async fn measure(&self, scenario: &'static Scenario) -> anyhow::Result<Results> {
        let mut contenders = self.contenders(scenario.contenders).await;
        for _ in 0..self.runs {
            for (contender, result) in contenders.iter_mut().filter(|(_, r)| r.left_out.is_none()) {
                match self.round(scenario, contender).await {
                    Ok(figures) => result.rounds.push(figures),
                    Err(e) => result.left_out = Some(in_a_line(&e)),
                }
            }
        }
        Ok(Results { scenario, contenders: contenders.into_iter().map(|(_, result)| result).collect() })
    }

    /// One contender, once, on a fresh server.
    async fn round(&self, scenario: &Scenario, contender: &Contender) -> anyhow::Result<Figures> {
        if let Load::Durable(store) = scenario.load {
            return durable::run(store, self.database.as_deref(), self.time()).await;
        }
        let server = contender.server.start().await?;
        let figures = tokio::task::block_in_place(|| match scenario.load {
            Load::Flood(flood) => measure::flood(&server, contender, &flood, self.time()),
            Load::Steady { subscribers, size, rate, longer } => {
                measure::steady(&server, contender, (subscribers, size, rate), self.time() * longer)
            }
            Load::Idle { sessions } => measure::idle(&server, contender, sessions),
            Load::Openings { sessions } => measure::openings(&server, contender, sessions),
            Load::Durable(_) => unreachable!("it has a node of its own"),
        });
        server.stop().await?;
        figures
    }

    fn finish(&self, all: &[Results], curves: &[curves::Curve]) -> anyhow::Result<()> {
        let settings = json!({ "seconds": self.seconds, "runs": self.runs, "peers": self.peers });
        let mut document = circumstances("bus", &settings);
        document.insert("scenarios".into(), all.iter().map(Results::json).collect());
        document.insert("curves".into(), curves.iter().map(curves::Curve::json).collect());
        if self.common.json {
            writeln!(std::io::stdout(), "{}", json!(document))?;
        }
        let Some(dir) = &self.common.save else { return Ok(()) };
        let dir = todays(dir)?;
        // what was measured today and not again stays: a long run may be made in pieces
        let earlier: Value = match std::fs::read_to_string(dir.join("bus.json")) {
            Ok(text) => serde_json::from_str(&text).context("reading the bus.json of an earlier run")?,
            Err(_) => Value::Null,
        };
        for part in ["scenarios", "curves"] {
            let new = document[part].as_array().cloned().unwrap_or_default();
            document.insert(part.into(), merged(&earlier[part], new));
        }
        save(&dir, "bus.json", &(serde_json::to_string_pretty(&document)? + "\n"))?;
        let tables = document["scenarios"].as_array().into_iter().flatten().map(results::markdown);
        let head = format!("# `minium bench bus`, medians\n\n{}\n", machine::description());
        save(&dir, "bus.md", &(head + &tables.collect::<String>()))?;
        curves.iter().try_for_each(|c| save(&dir, &format!("bus-{}.svg", c.name()), &c.svg()))
    }
}

/// What was measured now, and of what was measured earlier that which has no successor; in the order of the table.
fn merged(earlier: &Value, mut new: Vec<Value>) -> Value {
    let earlier = earlier.as_array().into_iter().flatten();
    let kept: Vec<Value> = earlier.filter(|e| new.iter().all(|n| n["name"] != e["name"])).cloned().collect();
    new.extend(kept);
    new.sort_by_key(|v| SCENARIOS.iter().position(|s| v["name"] == s.name));
    Value::Array(new)
}

/// An error's words, without line breaks: they stand in a table.
fn in_a_line(error: &anyhow::Error) -> String {
    format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}
