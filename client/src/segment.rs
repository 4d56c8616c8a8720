//! A name as one segment of a path.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What stands in a path as it is.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The name, percent-encoded: its slashes part nothing.
pub(crate) fn of(name: &str) -> String {
    utf8_percent_encode(name, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_name_has_it_is_one_segment() {
        assert_eq!(of("a-b_c.~"), "a-b_c.~");
        assert_eq!(of("a/b ?#%é"), "a%2Fb%20%3F%23%25%C3%A9");
    }
}
