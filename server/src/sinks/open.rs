//! Sinks whose words go over a network where everybody on the way can read them: told when a node starts, and by `doctor`.

use super::outbound::parse_url;
use crate::config::{Config, Sink, SinkKind};

/// What of the configured sinks can be read on the way, in words. Nothing of a secret stands in them.
pub(crate) fn open_sinks(config: &Config) -> Vec<String> {
    let sinks = config.sinks.iter();
    sinks.filter_map(|(name, sink)| Some(format!("sinks.{name}: {}", what_is_open(sink)?))).collect()
}

fn what_is_open(sink: &Sink) -> Option<String> {
    let (what, url) = match sink.kind()? {
        SinkKind::GithubStatus => ("the token goes", sink.base_url.as_ref()?.0.as_str()),
        SinkKind::Webhook if sink.bearer_file.is_some() => ("events and the token go", sink.url.as_deref()?),
        SinkKind::Webhook => ("events go", sink.url.as_deref()?),
    };
    // what is no URL was told of before
    let target = parse_url(url).ok().filter(super::outbound::Target::is_open)?;
    Some(format!(
        "{what} to {} over http, where everybody on the way can read and change it",
        target.authority()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, load_text};

    fn told(sink: &str) -> Vec<String> {
        open_sinks(&load_text(sink, &Flags::default()).unwrap())
    }

    #[test]
    fn a_token_that_goes_over_http_is_told_of() {
        let ci = |base: &str| {
            told(&format!(
                "[sinks.ci]\nkind = \"github-status\"\ntoken = \"tok\"\nrepository = \"/a\"\nsha = \"/b\"\n{base}"
            ))
        };
        let words = ci("base_url = \"http://git.example.com:8080/api\"");
        assert_eq!(words.len(), 1);
        assert!(
            words[0].starts_with("sinks.ci: the token goes to git.example.com:8080 over http,"),
            "{words:?}"
        );
        assert!(!words[0].contains("tok "), "{words:?}");
        assert!(ci("base_url = \"http://127.0.0.1:8080/api\"").is_empty());
        assert!(ci("base_url = \"https://git.example.com/api\"").is_empty());
        assert!(ci("").is_empty());
    }

    #[test]
    fn so_are_the_events_of_a_webhook() {
        let ops = |url: &str, more: &str| {
            told(&format!(
                "[sinks.ops]\nkind = \"webhook\"\nurl = \"{url}\"\nsecrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\n{more}"
            ))
        };
        assert!(ops("http://example.com/x", "")[0].contains(": events go to example.com over http"));
        assert!(
            ops("http://example.com/x", "bearer_file = \"f\"")[0].contains(": events and the token go to ")
        );
        assert!(ops("https://example.com/x", "bearer_file = \"f\"").is_empty());
    }
}
