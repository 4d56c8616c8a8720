//! Jobs that wait for each other, enqueued in one call: chains, groups, a job that gathers what others brought, one that runs
//! when something fails.
//!
//! ```
//! use minium_protocol::EnqueueRequest;
//! use minium_queue::Workflow;
//! # let json = |text: &str| serde_json::value::RawValue::from_string(text.into()).unwrap();
//! let mut flow = Workflow::new();
//! let fetch = flow.add(EnqueueRequest::new("fetch", json("[]")));
//! let parts: Vec<_> = (0..10)
//!     .map(|n| flow.after(&[fetch], EnqueueRequest::new("transform", json(&format!("[{n}]")))))
//!     .collect();
//! let gather = flow.after(&parts, EnqueueRequest::new("gather", json("[]")));
//! flow.on_failure(&parts, EnqueueRequest::new("tell", json("[]")));
//! // store.enqueue(flow.jobs()).await?
//! # assert_eq!(flow.jobs().len(), 13);
//! # let _ = gather;
//! ```

use crate::error::QueueError;
use minium_protocol::EnqueueRequest;

/// A job of a workflow, as its place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step(usize);

/// Jobs of one call.
#[derive(Debug, Clone, Default)]
pub struct Workflow {
    jobs: Vec<EnqueueRequest>,
}

impl Workflow {
    /// Without jobs yet.
    pub fn new() -> Workflow {
        Workflow::default()
    }

    /// Adds a job.
    pub fn add(&mut self, job: EnqueueRequest) -> Step {
        self.jobs.push(job);
        Step(self.jobs.len() - 1)
    }

    /// Adds a job that runs when all of these have finished. It can read their results.
    pub fn after(&mut self, parents: &[Step], mut job: EnqueueRequest) -> Step {
        job.options.after.extend(parents.iter().map(|step| step.0));
        self.add(job)
    }

    /// Adds a job that runs when one of these has failed, and is called off when all have ended and none did.
    pub fn on_failure(&mut self, parents: &[Step], mut job: EnqueueRequest) -> Step {
        job.options.on_failure = true;
        self.after(parents, job)
    }

    /// Adds jobs of which each waits for the one before. Answers the last.
    pub fn chain(&mut self, jobs: impl IntoIterator<Item = EnqueueRequest>) -> Option<Step> {
        let mut last = None;
        for job in jobs {
            last = Some(self.after(last.as_slice(), job));
        }
        last
    }

    /// The jobs, to be enqueued in one call.
    pub fn jobs(&self) -> &[EnqueueRequest] {
        &self.jobs
    }
}

/// The places of requests in an order in which everyone stands behind those that it waits for, and else as they came.
///
/// # Errors
/// [`QueueError::Invalid`] for a place that is not there, and for a circle.
pub(crate) fn order(requests: &[EnqueueRequest]) -> Result<Vec<usize>, QueueError> {
    let count = requests.len();
    if requests.iter().all(|request| request.options.after.is_empty()) {
        return Ok((0..count).collect());
    }
    let mut waits = vec![0_usize; count];
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (place, request) in requests.iter().enumerate() {
        for &parent in &request.options.after {
            if parent >= count {
                let words = format!("job {place}: after names place {parent}, there are {count} jobs from 0");
                return Err(QueueError::Invalid(words));
            }
            waits[place] += 1;
            followers[parent].push(place);
        }
    }
    // the free place that came first goes next
    let mut free: std::collections::BTreeSet<usize> = (0..count).filter(|place| waits[*place] == 0).collect();
    let mut ordered = Vec::with_capacity(count);
    while let Some(place) = free.pop_first() {
        ordered.push(place);
        for &follower in &followers[place] {
            waits[follower] -= 1;
            if waits[follower] == 0 {
                free.insert(follower);
            }
        }
    }
    if ordered.len() < count {
        let stuck = (0..count).find(|place| waits[*place] > 0).unwrap_or_default();
        return Err(QueueError::Invalid(format!("job {stuck}: after leads in a circle")));
    }
    Ok(ordered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(after: &[usize]) -> EnqueueRequest {
        let args = serde_json::value::to_raw_value(&()).unwrap();
        let mut job = EnqueueRequest::new("t", args);
        job.options.after = after.to_vec();
        job
    }

    #[test]
    fn parents_stand_before_those_that_wait_for_them() {
        let ordered = |jobs: &[&[usize]]| order(&jobs.iter().map(|after| job(after)).collect::<Vec<_>>());
        assert_eq!(ordered(&[&[], &[], &[]]).unwrap(), [0, 1, 2]);
        assert_eq!(ordered(&[&[2], &[], &[1]]).unwrap(), [1, 2, 0]);
        assert_eq!(ordered(&[&[1, 1], &[]]).unwrap(), [1, 0]);
        for circle in [vec![&[0][..]], vec![&[1][..], &[0][..]], vec![&[][..], &[2][..], &[1][..]]] {
            assert!(ordered(&circle).unwrap_err().to_string().contains("circle"));
        }
        assert!(ordered(&[&[7]]).unwrap_err().to_string().contains("place 7"));
    }

    #[test]
    fn a_chain_is_one_after_the_other() {
        let mut flow = Workflow::new();
        let last = flow.chain([job(&[]), job(&[]), job(&[])]);
        assert_eq!(last, Some(Step(2)));
        let afters: Vec<_> = flow.jobs().iter().map(|job| job.options.after.clone()).collect();
        assert_eq!(afters, [vec![], vec![0], vec![1]]);
    }
}
