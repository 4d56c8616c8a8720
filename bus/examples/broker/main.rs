//! A bus alone on a port, to be measured: `cargo run --release -p minium-bus --example broker -- 127.0.0.1:7700`.
//!
//! Prints what it listens on; ends, with 1001 to all, when its standard input does.

mod acceptor;

use minium_bus::{Backing, Bus, Options};
use std::io::{Read, Write};
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7700".into());
    // sockets are the shards'; this runtime only greets
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let bus = Bus::start(Options::default(), Backing::default())?;
        let listener = tokio::net::TcpListener::bind(&address).await?;
        writeln!(std::io::stdout(), "ws://{}", listener.local_addr()?)?;
        let accepting = tokio::spawn(acceptor::accept(listener, bus.clone(), None));
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        accepting.abort();
        bus.shutdown(Duration::from_secs(5)).await;
        Ok(())
    })
}
