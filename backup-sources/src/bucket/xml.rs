//! Listings before `object_store` reads them: keys that have no path come through under another name.

use super::keys::hidden;

/// What `object_store` can make sense of, of a listing as S3, Google or Azure answers it: keys that it has no path for, and
/// for one of which it would refuse the whole, are replaced by what [`BucketSource`](super::BucketSource) knows them by.
///
/// This belongs below the store, where its HTTP client hands over answers. Anything else than a listing is left as it is.
///
/// ```
/// let listing = "<ListBucketResult><Contents><Key>a/b</Key></Contents></ListBucketResult>".to_owned();
/// assert_eq!(backup_sources::bucket::readable(listing.clone()), listing);
/// ```
pub fn readable(listing: String) -> String {
    // Elsewhere, the elements of these names mean something else.
    if listing.contains("<ListBucketResult") {
        rewritten(&listing, "Key")
    } else if listing.contains("<EnumerationResults") {
        rewritten(&listing, "Name")
    } else {
        listing
    }
}

/// A listing with every key that has no path replaced by what stands for it.
fn rewritten(xml: &str, element: &str) -> String {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let mut done = String::with_capacity(xml.len());
    let mut rest = xml;
    while let Some((before, after)) = rest.split_once(&open) {
        let Some((text, after)) = after.split_once(&close) else { break };
        done.push_str(before);
        done.push_str(&open);
        match unescaped(text).and_then(|key| hidden(&key)) {
            Some(key) => done.push_str(&escaped(&key)),
            None => done.push_str(text),
        }
        done.push_str(&close);
        rest = after;
    }
    done.push_str(rest);
    done
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The text of an element; none if it has references that are not XML's own.
fn unescaped(text: &str) -> Option<String> {
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        let (name, after) = after.split_once(';')?;
        done.push_str(before);
        done.push(match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            number => {
                let number = number.strip_prefix('#')?;
                let code = match number.strip_prefix(['x', 'X']) {
                    Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                    None => number.parse().ok()?,
                };
                char::from_u32(code)?
            }
        });
        rest = after;
    }
    done.push_str(rest);
    Some(done)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn only_keys_without_a_path_are_replaced() {
        let other = "<Error><Key>a//b</Key></Error>".to_owned();
        assert_eq!(readable(other.clone()), other);
        let xml = "<R><Prefix>a//</Prefix><Contents><Key>a &amp; b</Key><Size>1</Size></Contents></R>";
        assert_eq!(rewritten(xml, "Key"), xml);
        let sign = '\u{10fffd}';
        let odd = "<R><Key>a&amp;b/</Key><Key>a//b</Key><Key>x&#x9;y</Key></R>";
        let (empty, tab) = (hex::encode("a//b"), hex::encode("x\ty"));
        let expected =
            format!("<R><Key>a&amp;b/{sign}</Key><Key>{sign}{empty}</Key><Key>{sign}{tab}</Key></R>");
        assert_eq!(rewritten(odd, "Key"), expected);
        assert_eq!(rewritten("<Key>unfinished", "Key"), "<Key>unfinished");
        let azure = "<EnumerationResults><Blob><Name>a//b</Name><Key>a//b</Key></Blob></EnumerationResults>";
        assert_eq!(
            readable(azure.to_owned()),
            azure.replace("<Name>a//b", &format!("<Name>{sign}{empty}")),
            "names of Azure"
        );
    }
}
