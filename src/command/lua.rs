//! The words of a Lua script, as far as it takes to see what it calls: comments are left out, and nothing is judged.

/// A word of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A name, or a word of the language's own.
    Name(&'a [u8]),
    /// A text in quotes or long brackets; `None` if it has escapes in it.
    Text(Option<&'a [u8]>),
    /// What begins with a digit.
    Number(&'a [u8]),
    /// One byte of anything else.
    Sign(u8),
}

/// The words of a script.
pub(super) fn tokens(script: &[u8]) -> Tokens<'_> {
    Tokens { rest: script }
}

/// Reads words off the front.
pub(super) struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blanks();
        let (&first, tail) = self.rest.split_first()?;
        Some(match first {
            b'"' | b'\'' => self.quoted(first),
            b'[' if level(self.rest).is_some() => Token::Text(Some(self.long())),
            b'0'..=b'9' => Token::Number(self.word()),
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => Token::Name(self.word()),
            _ => {
                self.rest = tail;
                Token::Sign(first)
            }
        })
    }
}

impl<'a> Tokens<'a> {
    fn skip_blanks(&mut self) {
        loop {
            self.rest = self.rest.trim_ascii_start();
            let Some(comment) = self.rest.strip_prefix(b"--") else { return };
            self.rest = comment;
            if level(comment).is_some() {
                self.long();
            } else {
                let end = memchr::memchr(b'\n', comment).unwrap_or(comment.len());
                self.rest = &comment[end..];
            }
        }
    }

    fn word(&mut self) -> &'a [u8] {
        let is_part = |byte: &u8| *byte == b'_' || byte.is_ascii_alphanumeric();
        let end = self.rest.iter().position(|byte| !is_part(byte)).unwrap_or(self.rest.len());
        self.take(end)
    }

    /// A text in quotes; to the end if it is not closed.
    fn quoted(&mut self, quote: u8) -> Token<'a> {
        let (mut at, mut is_plain) = (1, true);
        while let Some(&byte) = self.rest.get(at).filter(|byte| **byte != quote) {
            let escapes = byte == b'\\';
            is_plain &= !escapes;
            at += 1 + usize::from(escapes);
        }
        let at = at.min(self.rest.len());
        let text = &self.take(at)[1..];
        self.take(1.min(self.rest.len()));
        Token::Text(is_plain.then_some(text))
    }

    /// What stands in long brackets; to the end if they are not closed. A line end right behind the first is no part of it.
    fn long(&mut self) -> &'a [u8] {
        let level = level(self.rest).unwrap_or(0);
        self.take(level + 2);
        let end = [&b"]"[..], &b"=".repeat(level), b"]"].concat();
        let found = memchr::memmem::find(self.rest, &end);
        let text = self.take(found.unwrap_or(self.rest.len()));
        self.take(end.len().min(self.rest.len()));
        text.strip_prefix(b"\r\n").or_else(|| text.strip_prefix(b"\n")).unwrap_or(text)
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        taken
    }
}

/// The number of `=` within the long bracket that opens here, if one does.
fn level(text: &[u8]) -> Option<usize> {
    let inner = text.strip_prefix(b"[")?;
    let level = inner.iter().take_while(|byte| **byte == b'=').count();
    (inner.get(level) == Some(&b'[')).then_some(level)
}

#[cfg(test)]
mod tests {
    use proptest::collection;
    use proptest::prelude::{any, proptest};

    use super::Token::{Name, Number, Sign, Text};
    use super::*;

    fn check(script: &str, expected: &[Token<'_>]) {
        assert_eq!(tokens(script.as_bytes()).collect::<Vec<_>>(), expected, "{script}");
    }

    #[test]
    fn words() {
        check("a.b", &[Name(b"a"), Sign(b'.'), Name(b"b")]);
        check(" _x1\n= 12", &[Name(b"_x1"), Sign(b'='), Number(b"12")]);
        check("'a\"' \"b'\"", &[Text(Some(b"a\"")), Text(Some(b"b'"))]);
        check("'a\\'b' c", &[Text(None), Name(b"c")]);
        check("[[a]] [==[\nb]]]==]", &[Text(Some(b"a")), Text(Some(b"b]]"))]);
        check(
            "a[b[1]]",
            &[Name(b"a"), Sign(b'['), Name(b"b"), Sign(b'['), Number(b"1"), Sign(b']'), Sign(b']')],
        );
        check("x -- y 'z\n- 1", &[Name(b"x"), Sign(b'-'), Number(b"1")]);
        check("x --[[ y\nz ]] 1", &[Name(b"x"), Number(b"1")]);
        check("x --[=[ ]] ]=]--", &[Name(b"x")]);
        check("'open", &[Text(Some(b"open"))]);
        check("'open\\", &[Text(None)]);
        check("[[open", &[Text(Some(b"open"))]);
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(script in collection::vec(any::<u8>(), 0..200)) {
            assert!(tokens(&script).count() <= script.len());
        }

        #[test]
        fn nor_one_of_its_own_signs(script in "['\"\\[\\]=\\\\ a\n-]{0,40}") {
            assert!(tokens(script.as_bytes()).count() <= script.len());
        }
    }
}
