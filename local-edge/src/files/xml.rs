//! The XML of S3: answers written, and the two bodies that are read.

/// A document that is being written.
pub(super) struct Document {
    name: &'static str,
    text: String,
}

impl Document {
    pub(super) fn new(name: &'static str) -> Self {
        let xmlns = if name == "Error" { "" } else { " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"" };
        Self { name, text: format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{name}{xmlns}>") }
    }

    /// Adds an element with a text in it.
    pub(super) fn text(mut self, name: &str, text: &str) -> Self {
        self.text.push_str(&format!("<{name}>{}</{name}>", escaped(text)));
        self
    }

    /// Adds one if there is something to say.
    pub(super) fn option(self, name: &str, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.text(name, text),
            None => self,
        }
    }

    /// Adds an element with elements in it.
    pub(super) fn group(mut self, name: &str, fields: &[(&str, &str)]) -> Self {
        self.text.push_str(&format!("<{name}>"));
        for (field, text) in fields {
            self = self.text(field, text);
        }
        self.text.push_str(&format!("</{name}>"));
        self
    }

    pub(super) fn end(self) -> String {
        format!("{}</{}>", self.text, self.name)
    }
}

/// A text as it stands in XML. What XML cannot say at all is left out.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\r' | '\n' | '\t' => escaped.push_str(&format!("&#{};", u32::from(c))),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => escaped.push(c),
        }
    }
    escaped
}

/// The parts that the body of `CompleteMultipartUpload` names: number, and etag without its quotes.
pub(super) fn parts(body: &str) -> Option<Vec<(u32, String)>> {
    let of = |part: &str| {
        let number = edge::files::xml::text(part, "PartNumber")?.parse().ok()?;
        let etag = edge::files::xml::text(part, "ETag")?;
        Some((number, etag.trim_matches('"').to_owned()))
    };
    edge::files::xml::elements(body, "Part").map(of).collect()
}

/// The keys that the body of `DeleteObjects` names.
pub(super) fn keys(body: &str) -> Option<Vec<String>> {
    let of = |object: &str| edge::files::xml::text(object, "Key").map(std::borrow::Cow::into_owned);
    edge::files::xml::elements(body, "Object").map(of).collect()
}
