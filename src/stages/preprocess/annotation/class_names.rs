//! The names of the classes of YOLO, which has numbers in its annotations: `names` of the YAML file (`data.yaml`) beside them.
//!
//! ```yaml
//! nc: 2
//! names: [dent, scratch]      # or a map: 0: dent
//! ```

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, StrInput};

use super::unreadable;
use crate::artifacts::File;
use crate::stages::StageError;

/// Names of classes by their numbers.
pub(in super::super) type ClassNames = BTreeMap<u64, String>;

/// Reads the names of a YAML file; `None` if it has none.
///
/// # Errors
/// [`StageError::Data`] if the file is no YAML, or contradicts itself.
pub(in super::super) fn read_class_names(file: &File) -> Result<Option<ClassNames>, StageError> {
    let bytes = file.read_unchanged()?;
    let text = std::str::from_utf8(&bytes).map_err(|error| unreadable(file, "YOLO", error))?;
    Document { events: Parser::new_from_str(text) }.read().map_err(|what| unreadable(file, "YOLO", what))
}

/// A YAML document that is read from its start. Errors describe the problem.
struct Document<'a> {
    events: Parser<'a, StrInput<'a>>,
}

impl<'a> Document<'a> {
    fn read(&mut self) -> Result<Option<ClassNames>, String> {
        let (mut names, mut count) = (None, None);
        loop {
            match self.next()? {
                Event::StreamStart | Event::DocumentStart(_) => {}
                Event::MappingStart(..) => break,
                _ => return Ok(None),
            }
        }
        loop {
            let key = match self.next()? {
                Event::MappingEnd => break,
                Event::Scalar(key, ..) => key,
                other => {
                    self.pass(&other)?;
                    "".into()
                }
            };
            let value = self.next()?;
            match (key.as_ref(), &value) {
                ("names", _) if names.is_some() => return Err("it has `names` twice".to_owned()),
                ("names", _) => names = Some(self.names(&value)?),
                ("nc", Event::Scalar(number, ..)) => count = number.parse::<usize>().ok(),
                _ => self.pass(&value)?,
            }
        }
        match (&names, count) {
            (Some(names), Some(count)) if names.len() != count => {
                Err(format!("`nc` is {count}, but `names` has {}", names.len()))
            }
            _ => Ok(names),
        }
    }

    fn next(&mut self) -> Result<Event<'a>, String> {
        let event = self.events.next().ok_or("it ends too soon")?;
        event.map(|(event, _)| event).map_err(|error| error.to_string())
    }

    /// Passes over a value that begins with `first`.
    fn pass(&mut self, first: &Event<'a>) -> Result<(), String> {
        let step = |event: &Event<'a>| match event {
            Event::SequenceStart(..) | Event::MappingStart(..) => 1,
            Event::SequenceEnd | Event::MappingEnd => -1,
            _ => 0_i64,
        };
        let mut depth = step(first);
        while depth > 0 {
            depth += step(&self.next()?);
        }
        Ok(())
    }

    /// Reads the value of `names`.
    fn names(&mut self, first: &Event<'a>) -> Result<ClassNames, String> {
        let wrong = || "`names` is neither a list of names nor a map from numbers to names".to_owned();
        let is_map = match first {
            Event::MappingStart(..) => true,
            Event::SequenceStart(..) => false,
            _ => return Err(wrong()),
        };
        let mut names = ClassNames::new();
        loop {
            let mut word = match self.next()? {
                Event::MappingEnd | Event::SequenceEnd => return Ok(names),
                Event::Scalar(word, ..) => word,
                _ => return Err(wrong()),
            };
            let mut number = names.len() as u64;
            if is_map {
                number = word.parse().map_err(|_| wrong())?;
                let Event::Scalar(name, ..) = self.next()? else { return Err(wrong()) };
                word = name;
            }
            if names.insert(number, word.into_owned()).is_some() {
                return Err(format!("`names` has the number {number} twice"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Vec<(u64, String)>>, String> {
        let names = Document { events: Parser::new_from_str(text) }.read()?;
        Ok(names.map(|names| names.into_iter().collect()))
    }

    #[test]
    fn names_are_a_list_or_a_map() {
        let right = vec![(0, "dent".to_owned()), (1, "deep scratch".to_owned())];
        for text in [
            "names: [dent, deep scratch]",
            "train: ../train\nnc: 2\nnames: ['dent', \"deep scratch\"]\nroboflow:\n  url: [a, {b: c}]\n",
            "# YOLO\nnames:\n- dent # one\n- deep scratch\nnc: 2",
            "path: set\nnames:\n  0: dent\n  1: deep scratch\nkpt: {a: [1, 2]}\n",
            "names: {1: deep scratch, 0: dent}",
            "%YAML 1.2\n---\n? [a, b]\n: c\nnames: [dent,\n  deep\n  scratch]\n",
        ] {
            assert_eq!(read(text).unwrap().as_ref(), Some(&right), "{text}");
        }
        for text in ["", "- a", "nc: 1", "text", "a: {names: [b]}"] {
            assert_eq!(read(text).unwrap(), None, "{text}");
        }
        for (text, words) in [
            ("names: dent", "neither a list"),
            ("names: [[dent]]", "neither a list"),
            ("names: {dent: 0}", "neither a list"),
            ("a: &x [b]\nnames: *x", "neither a list"),
            ("names: {0: a, 0: b}", "the number 0 twice"),
            ("names: [a]\nnames: [b]", "`names` twice"),
            ("nc: 3\nnames: [a, b]", "`nc` is 3, but `names` has 2"),
            ("names: [a", "expected"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    /// Neither nesting nor references take more than the text does.
    #[test]
    fn deep_and_wide_documents_end() {
        let deep = format!("a: {}", "[".repeat(100_000));
        assert!(read(&deep).is_err());
        let blocks = (0..2000).map(|depth| " ".repeat(depth) + "a:\n").collect::<Vec<_>>().concat();
        assert_eq!(read(&blocks).unwrap(), None);
        let level = |level: u32| format!("a{level}: &a{level} [*a{0}, *a{0}]\n", level - 1);
        let wide: Vec<String> = (1..60).map(level).collect();
        let wide = format!("a0: &a0 [x, x]\n{}names: [a]", wide.concat());
        assert_eq!(read(&wide).unwrap(), Some(vec![(0, "a".to_owned())]));
    }
}
