//! Tasks of the node itself: `minium` and what lies below it. What they are told decides what a node says in its own
//! name, so nobody else enqueues or takes them but `admin`; and no event of theirs makes another.

use crate::topic::Topic;

/// The first segment of their names.
pub const OWN_TASKS: &str = "minium";

/// Is a task one of the node's own?
pub fn is_own_task(task: &str) -> bool {
    task.split('/').next() == Some(OWN_TASKS)
}

/// Is it the topic of a job of such a task?
pub fn is_own_topic(topic: &Topic) -> bool {
    topic.as_str().strip_prefix("task/").is_some_and(is_own_task)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_segments_make_a_task_the_nodes_own() {
        assert!(is_own_task("minium") && is_own_task("minium/deliver"));
        assert!(!is_own_task("miniumx/deliver") && !is_own_task("a/minium") && !is_own_task(""));
        let own = |topic: &str| is_own_topic(&topic.parse().unwrap());
        assert!(own("task/minium/deliver/7") && own("task/minium/7"));
        assert!(!own("task/import/7") && !own("minium/deliver/7") && !own("task"));
    }
}
