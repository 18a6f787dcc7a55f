//! What stands in the answers of a store: as much of XML as they use.
//!
//! A store of somebody else wrote it. Nothing is built of it but the names of uploads and of their parts, which are
//! sent back to the same store; what cannot be read is not there.

use std::borrow::Cow;

/// The content of the first element of this name, as it is written.
pub fn inner<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    elements(text, name).next()
}

/// The text of the first element of this name.
pub fn text<'a>(xml: &'a str, name: &str) -> Option<Cow<'a, str>> {
    inner(xml, name).map(|text| unescaped(text.trim()))
}

/// The contents of all elements of this name, which are not within one another.
pub fn elements<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}"), format!("</{name}>"));
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let begun = &rest[rest.find(&open)? + open.len()..];
            let tag_end = begun.find('>')?;
            let attributes = &begun[..tag_end];
            rest = &begun[tag_end + 1..];
            // Another name may begin with this one, and an element may be empty.
            if attributes.ends_with('/') || !attributes.is_empty() && !attributes.starts_with([' ', '\t', '\n', '\r']) {
                continue;
            }
            let end = rest.find(&close)?;
            let content = &rest[..end];
            rest = &rest[end + close.len()..];
            return Some(content);
        }
    })
}

/// A text that may stand in an element.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let named = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#34;", "\""), ("&apos;", "'"), ("&#39;", "'")];
    let text = named.iter().fold(text.to_owned(), |text, (name, meant)| text.replace(name, meant));
    Cow::Owned(text.replace("&amp;", "&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_and_read() {
        let list = "<?xml version=\"1.0\"?>\n<ListPartsResult xmlns=\"x\"><Parts>no</Parts><Part><PartNumber>1</PartNumber>\
                    <ETag>&quot;a&amp;lt;&quot;</ETag></Part><Part/><Part a=\"b\"><ETag> \"b\" </ETag></Part></ListPartsResult>";
        let etags: Vec<_> = elements(list, "Part").map(|part| text(part, "ETag").unwrap()).collect();
        assert_eq!(etags, ["\"a&lt;\"", "\"b\""]);
        assert_eq!(text(list, "PartNumber").as_deref(), Some("1"));
        for broken in ["", "<ETag", "<ETag>", "<ETag>a", "</ETag>", "<ETag/>", "<ETags>a</ETags>"] {
            assert_eq!(text(broken, "ETag"), None, "{broken}");
        }
        assert_eq!(escaped("<a&\"b\">"), "&lt;a&amp;&quot;b&quot;&gt;");
    }
}
