//! What stands in a spool's file: records, each with its length and a checksum.
//!
//! A crash may leave the last record torn: what is not whole at the end was never promised to be there. Damage before
//! that is passed over, and told: behind each record's mark another one can be found.

use minium_protocol::LeaseToken;
use minium_queue::{Ending, Outcome, Pause};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::time::Duration;

/// Begins every record.
const MARK: &[u8; 4] = b"mnR1";
/// Mark, length of the payload, checksum.
const HEAD_BYTES: usize = 16;
/// No record is longer: a length beyond is damage.
pub(super) const RECORD_BYTES_MAX: usize = 256 << 20;

/// One record.
#[derive(Debug, Clone)]
pub(super) enum Record {
    /// An outcome that is to be reported.
    Outcome(Outcome),
    /// It was reported.
    Done(LeaseToken),
}

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Wire<'a> {
    Finished {
        job: i64,
        lease: LeaseToken,
        #[serde(borrow)]
        result: &'a RawValue,
    },
    Failed {
        job: i64,
        lease: LeaseToken,
        error: String,
        retry: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pause: Option<WirePause>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        backtrace: Option<String>,
    },
    Done {
        lease: LeaseToken,
    },
}

/// Microseconds of a pause that is not the usual one.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WirePause {
    Task(u64),
    Run(u64),
}

impl WirePause {
    fn of(pause: Pause) -> Option<WirePause> {
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        match pause {
            Pause::Usual => None,
            Pause::Task(span) => Some(WirePause::Task(micros(span))),
            Pause::Run(span) => Some(WirePause::Run(micros(span))),
        }
    }

    fn pause(this: Option<&WirePause>) -> Pause {
        match this {
            None => Pause::Usual,
            Some(WirePause::Task(us)) => Pause::Task(Duration::from_micros(*us)),
            Some(WirePause::Run(us)) => Pause::Run(Duration::from_micros(*us)),
        }
    }
}

/// Appends an outcome.
pub(super) fn write_outcome(out: &mut Vec<u8>, outcome: &Outcome) {
    let (job, lease) = (outcome.job, outcome.lease);
    write(
        out,
        &match &outcome.ending {
            Ending::Finished(result) => Wire::Finished { job, lease, result },
            Ending::Failed { error, retry, pause, backtrace } => Wire::Failed {
                job,
                lease,
                error: error.clone(),
                retry: *retry,
                pause: WirePause::of(*pause),
                backtrace: backtrace.clone(),
            },
        },
    );
}

/// Appends that an outcome was reported.
pub(super) fn write_done(out: &mut Vec<u8>, lease: LeaseToken) {
    write(out, &Wire::Done { lease });
}

fn write(out: &mut Vec<u8>, wire: &Wire<'_>) {
    let payload = serde_json::to_vec(wire).expect("numbers, texts and JSON are JSON");
    let length = u32::try_from(payload.len()).expect("a result is far shorter").to_le_bytes();
    out.extend_from_slice(MARK);
    out.extend_from_slice(&length);
    out.extend_from_slice(&checksum(length, &payload));
    out.extend_from_slice(&payload);
}

fn checksum(length: [u8; 4], payload: &[u8]) -> [u8; 8] {
    let digest = Sha256::new().chain_update(length).chain_update(payload).finalize();
    digest[..8].try_into().expect("a digest has 32 bytes")
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Whole records, in order, each with its bytes.
    pub(super) records: Vec<(Record, usize)>,
    /// Where the last of them ends; what stands behind is torn.
    pub(super) end: usize,
    /// So many bytes before that are no records.
    pub(super) damaged: usize,
}

/// Reads all that is whole.
pub(super) fn scan(bytes: &[u8]) -> Scan {
    let (mut found, mut at) = (Scan::default(), 0);
    while let Some(start) = next_mark(bytes, at) {
        match read(&bytes[start..]) {
            Some((record, length)) => {
                found.damaged += start - found.end;
                at = start + length;
                found.end = at;
                found.records.push((record, length));
            }
            None => at = start + 1,
        }
    }
    found
}

fn next_mark(bytes: &[u8], from: usize) -> Option<usize> {
    bytes.get(from..)?.windows(MARK.len()).position(|w| w == MARK).map(|i| from + i)
}

/// The record at the beginning, and its length, if it is whole.
fn read(bytes: &[u8]) -> Option<(Record, usize)> {
    let head = bytes.get(..HEAD_BYTES)?;
    let length: [u8; 4] = head[4..8].try_into().ok()?;
    let end = HEAD_BYTES + usize::try_from(u32::from_le_bytes(length)).ok()?;
    if end > RECORD_BYTES_MAX {
        return None;
    }
    let payload = bytes.get(HEAD_BYTES..end)?;
    if checksum(length, payload) != head[8..16] {
        return None;
    }
    let record = match serde_json::from_slice(payload).ok()? {
        Wire::Finished { job, lease, result } => {
            Record::Outcome(Outcome { job, lease, ending: Ending::Finished(result.to_owned()) })
        }
        Wire::Failed { job, lease, error, retry, pause, backtrace } => {
            let pause = WirePause::pause(pause.as_ref());
            Record::Outcome(Outcome { job, lease, ending: Ending::Failed { error, retry, pause, backtrace } })
        }
        Wire::Done { lease } => Record::Done(lease),
    };
    Some((record, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with records of every kind, where each of them ends, and what each says.
    fn file() -> (Vec<u8>, Vec<usize>, Vec<String>) {
        let (mut bytes, mut ends, mut said) = (Vec::new(), Vec::new(), Vec::new());
        let lease = LeaseToken::fresh();
        // a result that looks like records
        for result in ["1", "null", "\"mnR1mnR1\"", "{\"a\": [1.50, \"\\u0000\"]}"] {
            let result = RawValue::from_string(result.into()).unwrap();
            write_outcome(&mut bytes, &Outcome { job: 7, lease, ending: Ending::Finished(result) });
            ends.push(bytes.len());
        }
        let ending = Ending::failed_for_good("no \"disk\"\nmnR1");
        write_outcome(&mut bytes, &Outcome { job: 8, lease, ending });
        ends.push(bytes.len());
        write_done(&mut bytes, lease);
        ends.push(bytes.len());
        said.extend(says(&scan(&bytes)));
        assert_eq!(said.len(), ends.len());
        (bytes, ends, said)
    }

    fn says(scan: &Scan) -> Vec<String> {
        scan.records.iter().map(|(r, _)| format!("{r:?}")).collect()
    }

    #[test]
    fn a_file_that_is_cut_anywhere_holds_the_records_before_the_cut() {
        let (bytes, ends, said) = file();
        for cut in 0..=bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let found = scan(&bytes[..cut]);
            assert_eq!(says(&found), said[..whole], "cut at {cut}");
            assert_eq!((found.end, found.damaged), (whole.checked_sub(1).map_or(0, |i| ends[i]), 0));
        }
    }

    #[test]
    fn a_byte_that_is_wrong_anywhere_costs_its_record_and_no_other() {
        let (bytes, ends, said) = file();
        for at in 0..bytes.len() {
            for wrong in [bytes[at] ^ 1, bytes[at] ^ 0x80, 0, b'm'].into_iter().filter(|b| *b != bytes[at]) {
                let mut damaged = bytes.clone();
                damaged[at] = wrong;
                let hit = ends.iter().filter(|end| **end <= at).count();
                let mut expected = said.clone();
                expected.remove(hit);
                let found = scan(&damaged);
                assert_eq!(says(&found), expected, "byte {at}");
                assert_eq!(found.damaged > 0, hit + 1 < ends.len(), "what is last is torn, not damaged");
            }
        }
    }

    #[test]
    fn what_is_written_twice_or_behind_rubbish_is_found() {
        let (bytes, _, said) = file();
        let mut twice = b"rubbish mnR1 and \0\0\0\0 more".to_vec();
        let rubbish = twice.len();
        twice.extend_from_slice(&bytes);
        twice.extend_from_slice(&bytes);
        let found = scan(&twice);
        assert_eq!(says(&found), [&said[..], &said[..]].concat());
        assert_eq!((found.damaged, found.end), (rubbish, twice.len()));
    }
}
