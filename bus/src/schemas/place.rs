//! Where a schema stands decides what it governs.

use crate::Pattern;
use minium_protocol::Topic;

/// What a schema governs, read from its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Place<'a> {
    /// A description that governs nothing: `job.json`.
    Document,
    /// Messages of one pattern on a topic and below.
    Channel(Pattern, &'a str),
    /// Arguments of a task and of those below it.
    Task(&'a str),
}

impl<'a> Place<'a> {
    /// `sub/livesys.json`, `tasks/livesys/inventory.json`, …; the reason when it is none.
    pub(super) fn of(path: &'a str) -> Result<Place<'a>, String> {
        if path == "job.json" {
            return Ok(Place::Document);
        }
        let name = path.strip_suffix(".json").ok_or("a schema's file name ends in .json")?;
        let (folder, topic) = name.split_once('/').ok_or(FOLDERS)?;
        let place = match folder {
            "tasks" => Place::Task(topic),
            _ => {
                let pattern = Pattern::named(folder).ok_or(FOLDERS)?;
                Place::Channel(pattern, topic)
            }
        };
        topic.parse::<Topic>().map_err(|e| format!("its path names no topic: {e}"))?;
        Ok(place)
    }
}

const FOLDERS: &str = "schemas stand in sub/, push/, bus/ (for a topic) or tasks/ (for a task's arguments)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_says_what_is_governed() {
        assert_eq!(Place::of("job.json"), Ok(Place::Document));
        assert_eq!(Place::of("sub/livesys.json"), Ok(Place::Channel(Pattern::Sub, "livesys")));
        assert_eq!(Place::of("bus/a/b.c.json"), Ok(Place::Channel(Pattern::Bus, "a/b.c")));
        assert_eq!(Place::of("tasks/livesys/inventory.json"), Ok(Place::Task("livesys/inventory")));
    }

    #[test]
    fn other_places_are_refused_with_the_reason() {
        for (path, word) in [
            ("common.json", "sub/"),
            ("pull/x.json", "sub/"),
            ("sub/x.yaml", ".json"),
            ("sub/.json", "topic"),
            ("sub/a b.json", "character"),
            ("sub/../job.json", "dot segment"),
            ("sub//x.json", "empty"),
            ("sub/+.json", "+"),
        ] {
            let reason = Place::of(path).unwrap_err();
            assert!(reason.contains(word), "{path}: {reason}");
        }
    }
}
