//! The query of a URL, as pairs; and the position that a subscription's query asks for.

use super::problem::Refusal;
use axum::extract::Query;
use http::{HeaderMap, HeaderName, Uri};
use minium_protocol::After;

/// Name and value of each parameter, decoded.
pub(crate) type Pairs = Vec<(String, String)>;

/// `Last-Event-ID`, which SSE clients send when they come back.
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// All parameters, in order.
pub(crate) fn pairs(uri: &Uri) -> Result<Pairs, Refusal> {
    Query::<Pairs>::try_from_uri(uri).map(|q| q.0).map_err(|_| Refusal::invalid("the query cannot be read"))
}

/// The one value of a parameter; `None` when it is absent.
pub(crate) fn one<'a>(pairs: &'a Pairs, name: &str) -> Result<Option<&'a str>, Refusal> {
    let mut found = pairs.iter().filter(|(n, _)| n == name);
    let first = found.next().map(|(_, value)| value.as_str());
    if found.next().is_some() {
        return Err(Refusal::invalid(format!("{name} stands in the query more than once")));
    }
    Ok(first)
}

/// Refuses parameters that are not known: a misspelt one must not be ignored in silence.
pub(crate) fn only(pairs: &Pairs, known: &[&str]) -> Result<(), Refusal> {
    match pairs.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        Some((name, _)) => {
            let known = known.join(", ");
            let name: String = name.chars().take(60).collect();
            Err(Refusal::invalid(format!("there is no parameter {name:?} here; there are {known}")))
        }
        None => Ok(()),
    }
}

/// All values of a parameter that is repeated, or parted by commas. An empty one, as an unset variable of a shell makes
/// it, is no wish for all that there is.
pub(crate) fn many<'a>(pairs: &'a Pairs, name: &str) -> Result<Vec<&'a str>, Refusal> {
    let values = pairs.iter().filter(|(n, _)| n == name).flat_map(|(_, value)| value.split(','));
    let values: Vec<&str> = values.collect();
    match values.iter().any(|value| value.is_empty()) {
        true => Err(Refusal::invalid(format!("{name} is empty; leave it out to ask for all"))),
        false => Ok(values),
    }
}

/// How many of something are asked for at most: `?limit=`.
pub(crate) fn limit(pairs: &Pairs, usual: u32, most: u32) -> Result<u32, Refusal> {
    let Some(text) = one(pairs, "limit")? else { return Ok(usual) };
    let limit = text.parse().ok().filter(|n| (1..=most).contains(n));
    limit.ok_or_else(|| Refusal::invalid(format!("limit must be a whole number from 1 to {most}")))
}

/// Where a subscription begins: `?after=` or `?last=`.
pub(crate) fn after(uri: &Uri) -> Result<After, Refusal> {
    let pairs = pairs(uri)?;
    match (one(&pairs, "after")?, one(&pairs, "last")?) {
        (Some(_), Some(_)) => Err(Refusal::invalid("after and last exclude each other")),
        (Some(after), None) => after.parse().map_err(|e| Refusal::invalid(format!("after: {e}"))),
        (None, Some(last)) => {
            let count = last.parse().map_err(|_| Refusal::invalid("last must be a whole number"))?;
            Ok(After::Last(count))
        }
        (None, None) => Ok(After::Latest),
    }
}

/// The same for SSE, where the position that the client saw last wins over that of the URL it began with.
pub(crate) fn after_event(uri: &Uri, headers: &HeaderMap) -> Result<After, Refusal> {
    match headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) {
        Some(id) => {
            let text = id.to_str().unwrap_or("?");
            text.parse().map_err(|e| Refusal::invalid(format!("Last-Event-ID: {e}")))
        }
        None => after(uri),
    }
}

/// As Perl sees truth, since Mercury was Perl: empty and `0` are false.
pub(crate) fn is_true(value: Option<&str>) -> bool {
    !matches!(value, None | Some("" | "0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_protocol::Position;

    fn asked(query: &str) -> Option<After> {
        after(&format!("/sub/task{query}").parse().unwrap()).ok()
    }

    #[test]
    fn a_query_names_a_position() {
        assert_eq!(asked(""), Some(After::Latest));
        assert_eq!(asked("?after=3:7"), Some(After::Position(Position { epoch: 3, offset: 7 })));
        assert_eq!(asked("?after=3%3A7"), Some(After::Position(Position { epoch: 3, offset: 7 })));
        assert_eq!(asked("?after=earliest&x=y"), Some(After::Earliest));
        assert_eq!(asked("?last=10"), Some(After::Last(10)));
        for bad in ["?after=x", "?after=", "?last=-1", "?last=x", "?after=1&last=1", "?after=1&after=2"] {
            assert_eq!(asked(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_the_client_saw_last_wins() {
        let uri = "/sub/task?after=earliest".parse().unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(after_event(&uri, &headers).unwrap(), After::Earliest);
        headers.insert(LAST_EVENT_ID, "1:5".parse().unwrap());
        assert_eq!(after_event(&uri, &headers).unwrap(), After::Position(Position { epoch: 1, offset: 5 }));
        headers.insert(LAST_EVENT_ID, "".parse().unwrap());
        assert_eq!(after_event(&uri, &headers).unwrap(), After::Earliest);
        headers.insert(LAST_EVENT_ID, "what".parse().unwrap());
        assert!(after_event(&uri, &headers).is_err());
    }

    #[test]
    fn unknown_parameters_are_named() {
        let pairs = pairs(&"/x?state=active&limt=5".parse().unwrap()).unwrap();
        assert!(only(&pairs, &["state", "limit"]).is_err());
        assert!(only(&pairs, &["state", "limt"]).is_ok());
    }

    #[test]
    fn truth_is_as_in_perl() {
        assert!(is_true(Some("1")) && is_true(Some("no")));
        assert!(!is_true(Some("0")) && !is_true(Some("")) && !is_true(None));
    }
}
