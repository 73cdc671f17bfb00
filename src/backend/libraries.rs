//! The libraries that were loaded through the proxy, so that it can tell what a function does that is called without keys.
//!
//! What is said of them is a hint: others may have changed them meanwhile. All workers share one book, as they do of scripts.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::command::function::Library;

/// Most libraries that are remembered; of those beyond nothing is known.
const MOST_LIBRARIES: usize = 1000;
/// Most bytes of one.
const MOST_BYTES: usize = 64 << 10;

/// Texts of libraries by their names.
#[derive(Debug, Default)]
pub struct Libraries {
    book: ArcSwap<HashMap<Vec<u8>, Bytes>>,
}

impl Libraries {
    /// Remembers a library that every node has taken, in place of the one of that name.
    pub fn remember(&self, text: &[u8]) {
        let Some(name) = Library::name(text) else { return };
        let text = Bytes::copy_from_slice(text);
        self.book.rcu(|book| {
            let mut book = HashMap::clone(book);
            if text.len() <= MOST_BYTES && (book.len() < MOST_LIBRARIES || book.contains_key(name))
            {
                book.insert(name.to_vec(), text.clone());
            } else {
                book.remove(name);
            }
            book
        });
    }

    /// Forgets a library.
    pub fn forget(&self, name: &[u8]) {
        self.book.rcu(|book| {
            let mut book = HashMap::clone(book);
            book.remove(name);
            book
        });
    }

    /// Forgets all libraries.
    pub fn clear(&self) {
        self.book.store(Arc::default());
    }

    /// What the library with this function says.
    pub fn with<T>(&self, function: &[u8], look: impl FnOnce(&Library<'_>) -> T) -> Option<T> {
        let book = self.book.load();
        let may_have = |text: &&Bytes| memchr::memmem::find(text, function).is_some();
        let has = |library: &Library<'_>| library.functions().any(|known| known == function);
        let mut libraries = book.values().filter(may_have).map(|text| Library::read(text));
        libraries.find(has).as_ref().map(look)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(name: &str, function: &str) -> String {
        format!("#!lua name={name}\nredis.register_function('{function}', f)")
    }

    #[test]
    fn the_last_text_of_a_name_counts() {
        let libraries = Libraries::default();
        let has = |function: &str| libraries.with(function.as_bytes(), |_| ()).is_some();
        libraries.remember(library("a", "one").as_bytes());
        libraries.remember(library("b", "two").as_bytes());
        assert!(has("one") && has("two") && !has("tw"));
        libraries.remember(library("a", "three").as_bytes());
        assert!(!has("one") && has("three"));
        libraries.remember((library("a", "three") + &" ".repeat(MOST_BYTES)).as_bytes());
        assert!(!has("three") && has("two"));
        libraries.forget(b"b");
        assert!(!has("two"));
        libraries.remember(library("a", "one").as_bytes());
        libraries.clear();
        assert!(!has("one"));
    }
}
