//! Splits a command line into words as a shell would, without a shell: quotes and backslashes, nothing else. No
//! variables, no globs, no pipes: arguments that come from elsewhere can never become code.

/// The words of a command line.
///
/// Blanks separate words. `'…'` is literal, in `"…"` a backslash escapes `"` and `\`, elsewhere it escapes any
/// character.
pub(super) fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            '\'' | '"' => quoted(c, &mut chars, word.get_or_insert_default())?,
            '\\' => {
                let next = chars.next().ok_or("it ends in a backslash")?;
                word.get_or_insert_default().push(next);
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    match words.first() {
        None => Err("it is empty".into()),
        Some(program) if program.is_empty() => Err("its first word is empty".into()),
        Some(_) if line.contains('\0') => Err("it has a NUL character".into()),
        Some(_) => Ok(words),
    }
}

/// The rest of a quotation, up to its closing quote.
fn quoted(quote: char, chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), String> {
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => match chars.next() {
                Some(c @ ('"' | '\\')) => word.push(c),
                Some(c) => word.extend(['\\', c]),
                None => break,
            },
            c => word.push(c),
        }
    }
    Err(format!("a quotation that begins with {quote} does not end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        split(line).unwrap()
    }

    #[test]
    fn blanks_separate_and_quotes_keep_together() {
        assert_eq!(words("  ./burn-in.sh --hours  3\t"), ["./burn-in.sh", "--hours", "3"]);
        assert_eq!(words(r#"a 'b  c' "d \"e\" \n" f\ g"#), ["a", "b  c", r#"d "e" \n"#, "f g"]);
        assert_eq!(words("a '' x''y"), ["a", "", "xy"]);
    }

    #[test]
    fn what_means_something_to_a_shell_means_nothing_here() {
        assert_eq!(words("echo $HOME ; rm * | x > y"), ["echo", "$HOME", ";", "rm", "*", "|", "x", ">", "y"]);
    }

    #[test]
    fn lines_that_cannot_be_read_are_refused() {
        for line in ["", "   ", "a 'b", "a \"b", "a \"b\\", "a\\", "'' x", "a\0b"] {
            assert!(split(line).is_err(), "{line:?}");
        }
    }
}
