//! YAML as a small tree of texts, lists and tables, each with the line it stands in.
//!
//! The text is input: how deep it nests and how much it holds is bounded, and nothing here is
//! recursive. Deliberately absent: types of scalars (whoever reads one says what it is to be),
//! aliases (a few of them unfold into gigabytes), several documents in one text.

use std::collections::HashSet;

use saphyr_parser::{Event, Parser, ScalarStyle};

/// Lists and tables in one another.
const MAX_DEPTH: usize = 32;

/// Texts, lists and tables in one document.
const MAX_NODES: usize = 1 << 16;

/// Characters of a text that a sentence shows.
const MAX_SHOWN: usize = 60;

/// A piece of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Its line, from 1.
    pub(crate) line: usize,
    pub(crate) value: Value,
}

/// What a piece is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// Nothing: written as nothing, `~` or `null`.
    Null,
    Text(String),
    List(Vec<Node>),
    /// In the order of the text. A key is there once.
    Table(Vec<(Key, Node)>),
}

/// A key of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) line: usize,
    pub(crate) name: String,
}

/// Why a text is not such a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) line: usize,
    pub(crate) reason: String,
}

/// The one document of `text`; `Null` where it has none.
pub(crate) fn parse(text: &str) -> Result<Node, Fault> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Fault {
            line: error.marker().line(),
            reason: error.info().to_owned(),
        })?;
        let line = span.start.line();
        let taken = builder.take(event, line);
        taken.map_err(|reason| Fault { line, reason })?;
    }
    let nothing = Node {
        line: 1,
        value: Value::Null,
    };
    Ok(builder.root.unwrap_or(nothing))
}

/// A list or a table that has not ended yet.
#[derive(Debug)]
struct Open {
    line: usize,
    what: OpenKind,
}

#[derive(Debug)]
enum OpenKind {
    List(Vec<Node>),
    Table(OpenTable),
}

#[derive(Debug, Default)]
struct OpenTable {
    entries: Vec<(Key, Node)>,
    /// The key whose value comes next.
    key: Option<Key>,
    /// All that have been there.
    names: HashSet<String>,
}

#[derive(Debug, Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, ..) => self.add(Node {
                line,
                value: scalar(&text, style),
            }),
            Event::SequenceStart(..) => self.begin(line, OpenKind::List(Vec::new())),
            Event::MappingStart(..) => self.begin(line, OpenKind::Table(OpenTable::default())),
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(_) => Err("aliases (*name) are not understood".to_owned()),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err("a second document begins here: there may be one".to_owned())
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn begin(&mut self, line: usize, what: OpenKind) -> Result<(), String> {
        if self.open.len() == MAX_DEPTH {
            return Err(format!("it is nested more than {MAX_DEPTH} levels deep"));
        }
        self.open.push(Open { line, what });
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(Open { line, what }) = self.open.pop() else {
            return Err("something ends that has not begun".to_owned());
        };
        let value = match what {
            OpenKind::List(list) => Value::List(list),
            OpenKind::Table(table) => Value::Table(table.entries),
        };
        self.add(Node { line, value })
    }

    fn add(&mut self, node: Node) -> Result<(), String> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(format!("it holds more than {MAX_NODES} values"));
        }
        match self.open.last_mut().map(|open| &mut open.what) {
            None => self.root = Some(node),
            Some(OpenKind::List(list)) => list.push(node),
            Some(OpenKind::Table(table)) => table.add(node)?,
        }
        Ok(())
    }
}

impl OpenTable {
    fn add(&mut self, node: Node) -> Result<(), String> {
        if let Some(key) = self.key.take() {
            self.entries.push((key, node));
            return Ok(());
        }
        let Value::Text(name) = node.value else {
            return Err("a key is not a text".to_owned());
        };
        if !self.names.insert(name.clone()) {
            return Err(format!("'{}' is there twice", shortened(&name)));
        }
        let line = node.line;
        self.key = Some(Key { line, name });
        Ok(())
    }
}

/// What a sentence shows of a text from outside.
pub(crate) fn shortened(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    match (style, text) {
        (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Value::Null,
        _ => Value::Text(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: usize, text: &str) -> Node {
        let value = Value::Text(text.to_owned());
        Node { line, value }
    }

    #[test]
    fn a_document_is_a_tree_with_lines() {
        let node = parse("# of mine\na:\n  - 'b'\n  - c: ~\nd: \"~\"\n").unwrap();
        let Value::Table(table) = node.value else {
            panic!("a table");
        };
        let keys: Vec<_> = table.iter().map(|(k, _)| (k.line, &*k.name)).collect();
        assert_eq!(keys, [(2, "a"), (5, "d")]);
        let Value::List(list) = &table[0].1.value else {
            panic!("a list");
        };
        assert_eq!(list[0], text(3, "b"));
        assert!(matches!(&list[1].value, Value::Table(t) if t[0].1.value == Value::Null));
        assert_eq!(table[1].1, text(5, "~"));
        for nothing in ["", "# only\n", "---\n", "~"] {
            assert_eq!(parse(nothing).unwrap().value, Value::Null, "{nothing:?}");
        }
    }

    #[test]
    fn as_many_keys_as_there_may_be_are_read() {
        // Each is compared with no other: these would be billions of comparisons.
        let keys: String = (0..MAX_NODES / 2 - 1)
            .map(|n| format!("k{n}: 1\n"))
            .collect();
        let Value::Table(table) = parse(&keys).unwrap().value else {
            panic!("a table");
        };
        assert_eq!(table.len(), MAX_NODES / 2 - 1);
        let long = "x".repeat(1_000);
        let said = parse(&format!("{long}: 1\n{long}: 2\n"))
            .unwrap_err()
            .reason;
        assert!(said.contains("twice") && said.len() < 300, "{said}");
    }

    #[test]
    fn what_could_grow_is_refused() {
        let deep = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(parse(&deep(MAX_DEPTH)).is_ok());
        assert!(parse(&deep(MAX_DEPTH + 1)).is_err());
        assert!(parse(&deep(1 << 17)).is_err());
        let blocks = |depth| {
            (0..depth)
                .map(|n| " ".repeat(n) + "a:\n")
                .collect::<String>()
        };
        assert!(parse(&blocks(1000)).unwrap_err().reason.contains("nested"));
        let wide = "- x\n".repeat(MAX_NODES);
        assert!(parse(&wide).unwrap_err().reason.contains("more than"));
        for (bad, line, said) in [
            ("a: &x 1\nb: *x\n", 2, "aliases"),
            ("a: 1\n---\nb: 2\n", 2, "second document"),
            ("a: 1\na: 2\n", 2, "twice"),
            ("? [a]\n: b\n", 1, "not a text"),
            ("a: 'b\n", 1, ""),
        ] {
            let fault = parse(bad).unwrap_err();
            assert!(fault.reason.contains(said), "{bad:?}: {fault:?}");
            assert!(fault.line >= line, "{bad:?}: {fault:?}");
        }
    }
}
