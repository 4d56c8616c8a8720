//! `minium dev`: everything in memory, with a real task and a schedule, to look at.

use crate::config::{Flags, load_text};
use crate::inventory;
use crate::node::{self, Extras};
use clap::Args;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};

/// What `dev` adds to the defaults. The environment and flags win over it, files are not read.
const CONFIGURATION: &str = r#"
    [schedules.inventory]
    task = "livesys/inventory"
    every = "10s"
    [queue]
    keep_finished = "1h"
    [channels.task.retention]
    count = 100000
"#;

/// Arguments of `minium dev`.
#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Directory with schemas, added to the built-in ones
    #[arg(long, value_name = "DIR")]
    schemas: Option<String>,
}

impl Dev {
    /// Does it, until a signal ends it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        // said by flag, so that no variable can point the show at a real database
        let database = Some("sqlite::memory:".to_owned());
        let flags = Flags { listen: self.listen, schemas: self.schemas, database, ..Flags::default() };
        let config = load_text(CONFIGURATION, &flags)?;
        let extras = Extras {
            tasks: Some(Box::new(inventory::add)),
            greeting: Some(Box::new(greet)),
            ..Extras::default()
        };
        node::run(config, extras).await
    }
}

/// What to open and what to try. A closed stderr is no reason not to run.
fn greet(url: &str) {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    writeln!(std::io::stderr(), "{}", greeting(url, colour)).ok();
}

fn greeting(url: &str, colour: bool) -> String {
    let (bold, dim, red, off) =
        if colour { ("\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[0m") } else { ("", "", "", "") };
    let sockets = url.replacen("http", "ws", 1);
    // Clients find port 3000 by themselves.
    let prefix = if url.ends_with(":3000") { String::new() } else { format!("MINIUM_URL={url} ") };
    let mut text =
        format!("\n  {red}{bold}◆ Minium{off} {dim}in memory: nothing outlives this process{off}\n\n");
    let open = [
        ("the page", url.to_owned()),
        ("task events", format!("{sockets}/sub/task")),
        ("machines", format!("{sockets}/sub/livesys")),
        ("metrics", format!("{url}/metrics")),
    ];
    for (name, address) in open {
        writeln!(text, "  {name:<12} {bold}{address}{off}").expect("memory takes every byte");
    }
    let every = "this machine's inventory, now and every 10 s";
    writeln!(text, "\n  A worker runs {bold}livesys/inventory{off}: {every}.")
        .expect("memory takes every byte");
    writeln!(text, "  Try next, in another terminal:\n").expect("memory takes every byte");
    let tries = [
        ("minium sub task --last 3", "events, as any client gets them"),
        ("minium job enqueue livesys/inventory --wait", "one more job, and its result"),
        ("curl -N -H 'Accept: text/event-stream' ", "machines' reports, by curl"),
    ];
    for (command, what) in tries {
        let command = match command.strip_prefix("minium ") {
            Some(rest) => format!("{prefix}{} {rest}", program()),
            None => format!("{command}{url}/sub/livesys"),
        };
        writeln!(text, "    {bold}{command}{off}\n    {dim}{what}{off}\n").expect("memory takes every byte");
    }
    writeln!(text, "  Ctrl-C ends it.").expect("memory takes every byte");
    text
}

/// How this program was called: from a checkout it is not in the PATH.
fn program() -> String {
    let in_path = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join("minium").is_file()));
    let this = std::env::current_exe().ok().filter(|_| !in_path);
    let here = std::env::current_dir().ok();
    this.map_or("minium".into(), |path| {
        let short = here.and_then(|dir| path.strip_prefix(dir).ok().map(|p| format!("./{}", p.display())));
        short.unwrap_or_else(|| path.display().to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_configuration_is_one() {
        let config = load_text(CONFIGURATION, &Flags::default()).unwrap();
        assert_eq!(config.schedules["inventory"].task.as_deref(), Some(inventory::TASK));
    }

    #[test]
    fn it_names_addresses_that_work_on_any_port() {
        let text = greeting("http://127.0.0.1:4711", false);
        assert!(
            text.contains("ws://127.0.0.1:4711/sub/task")
                && text.contains("MINIUM_URL=http://127.0.0.1:4711 ")
        );
        assert!(!greeting("http://127.0.0.1:3000", false).contains("MINIUM_URL"));
    }
}
