//! How fast archives are read and written: `speed verify DIR EVENTS` makes one and verifies it, `speed record URL DIR` records
//! what a server has.

use minium_audit::{Batch, HEARTBEAT, RecordOptions, SegmentLimits, VerifyOptions, Writer, record, verify};
use minium_client::{Backoff, Client};
use minium_protocol::After;
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

type Outcome = Result<(), Box<dyn Error>>;

/// As a task event with a few arguments is.
fn event(offset: u64) -> String {
    let (second, result) = (offset / 20_000 % 60, offset.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    format!(
        r#"{{"specversion":"1.0","id":"019adc00-{:04x}-7000-8000-{offset:012x}","source":"/minium/default","type":"task.finished","subject":"{offset}","time":"2026-11-22T02:00:{second:02}.123456Z","datacontenttype":"application/json","dataschema":"http://127.0.0.1:3000/schemas/job.json","epoch":"1","sequence":"{offset:020}","data":{{"id":{offset},"task":"import","queue":"default","state":"finished","priority":0,"args":["file-{offset}.csv",{{"rows":{}}}],"notes":{{}},"attempt":1,"attempts":3,"retries":0,"parents":[],"lax":false,"key":null,"schedule":null,"worker":{{"id":7,"host":"rack3","pid":411}},"result":{{"sum":"{result:016x}"}},"error":null,"progress":null,"origin":null,"created":"2026-11-22T02:00:00.000000Z","delayed":"2026-11-22T02:00:00.000000Z","expires":null,"started":"2026-11-22T02:00:00.000000Z","finished":"2026-11-22T02:00:00.000000Z","retried":null}}}}"#,
        offset & 0xffff,
        offset % 1_000
    )
}

fn told(what: &str, events: u64, bytes: u64, took: Duration) -> Outcome {
    let seconds = took.as_secs_f64();
    let (rate, mega) = (events as f64 / seconds, bytes as f64 / 1e6 / seconds);
    writeln!(std::io::stdout(), "{what}: {events} events in {seconds:.2} s, {rate:.0}/s, {mega:.0} MB/s")?;
    Ok(())
}

fn verified(dir: &Path, events: u64) -> Outcome {
    let mut writer = Writer::open(dir, &["task".into()], None, SegmentLimits::default())?;
    let (began, mut batch) = (Instant::now(), Batch::new("task"));
    for offset in 1..=events {
        batch.push(&event(offset))?;
        if batch.bytes() >= 4 << 20 || offset == events {
            writer.append(&std::mem::replace(&mut batch, Batch::new("task")))?;
        }
    }
    drop(writer);
    let took = began.elapsed();
    let began = Instant::now();
    let verdict = verify(dir, &VerifyOptions::default(), &mut |_| ())?;
    told("written", events, verdict.bytes, took)?;
    told("verified", verdict.events, verdict.bytes, began.elapsed())
}

async fn recorded(url: &str, dir: &Path) -> Outcome {
    let client = Client::new(url, None)?;
    let writer = Writer::open(dir, &["task".into()], None, SegmentLimits::default())?;
    let options = RecordOptions {
        topics: vec!["task".parse()?],
        after: After::Earliest,
        flush: Duration::from_secs(1),
        accept_gaps: false,
        once: true,
        name: "speed".into(),
        heartbeat: HEARTBEAT,
        backoff: Backoff::default(),
        uploaded: None,
    };
    let began = Instant::now();
    let done = record(&client, writer, options, CancellationToken::new()).await?;
    let took = began.elapsed();
    let verdict = verify(dir, &VerifyOptions::default(), &mut |_| ())?;
    told("recorded", done.events, verdict.bytes, took)
}

fn main() -> Outcome {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["verify", dir, events] => verified(Path::new(dir), events.parse()?),
        ["record", url, dir] => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(recorded(url, Path::new(dir)))
        }
        _ => Err("speed verify DIR EVENTS | speed record URL DIR".into()),
    }
}
