//! What is known of the images that have one file's name: which image of a registry each was made from.
//!
//! It stands in a file beside the image. A note tells which content it is of, by length and time of change: so it does
//! not have to change in the same moment as the image, and says nothing of a file that somebody else has put there.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use files::Durability;
use protocol::Timestamp;
use serde::{Deserialize, Serialize};

/// The file is much smaller.
const BYTES_MAX: u64 = 100_000;

/// The image, the one before it, and one that is on its way.
const NOTES_MAX: usize = 3;

/// All notes of one name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Notes {
    v: u64,
    images: Vec<Note>,
}

/// Where one content came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    bytes: u64,
    modified_ns: i64,
    /// As [`site::Reference`] shows it.
    pub(crate) reference: String,
    pub(crate) digest: String,
    pub(crate) pulled_at: Timestamp,
}

impl Notes {
    fn path(image: &Path) -> PathBuf {
        let mut name = image.file_name().unwrap_or_default().to_owned();
        name.push(".pulled.json");
        image.with_file_name(name)
    }

    /// Those beside an image. What cannot be read tells nothing.
    pub(crate) fn read(image: &Path) -> Self {
        let text = files::read_own(&Self::path(image), BYTES_MAX).ok();
        text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// The note of what is in this file.
    pub(crate) fn of(&self, file: &Path) -> Option<&Note> {
        let (bytes, modified_ns) = version(file).ok()?;
        self.images.iter().find(|note| (note.bytes, note.modified_ns) == (bytes, modified_ns))
    }

    /// Adds that of a file that is about to become the image, and writes all.
    pub(crate) fn add(
        mut self,
        image: &Path,
        file: &Path,
        reference: String,
        digest: String,
        pulled_at: Timestamp,
    ) -> io::Result<()> {
        let (bytes, modified_ns) = version(file)?;
        self.v = 1;
        self.images.retain(|note| (note.bytes, note.modified_ns) != (bytes, modified_ns));
        self.images.push(Note { bytes, modified_ns, reference, digest, pulled_at });
        // The one before and that before it are what may be there still.
        let gone = self.images.len().saturating_sub(NOTES_MAX);
        self.images.drain(..gone);
        let text = serde_json::to_vec_pretty(&self)?;
        files::replace(&Self::path(image), &text, Durability::Content).map(drop)
    }
}

fn version(file: &Path) -> io::Result<(u64, i64)> {
    let metadata = fs::metadata(file)?;
    Ok((metadata.len(), metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_of_one_content_whatever_its_name() {
        let temp = tempfile::tempdir().unwrap();
        let (image, aside) = (temp.path().join("my.sif"), temp.path().join("aside"));
        assert_eq!(Notes::read(&image), Notes::default());
        let at = protocol::timestamp_from_millis(1_700_000_000_000);
        for number in 0..5 {
            fs::write(&aside, format!("{number:>number$}")).unwrap();
            Notes::read(&image).add(&image, &aside, "docker://a/b:7".to_owned(), format!("d{number}"), at).unwrap();
            assert_eq!(Notes::read(&image).of(&aside).unwrap().digest, format!("d{number}"));
            fs::rename(&aside, &image).unwrap();
            assert_eq!(Notes::read(&image).of(&image).unwrap().digest, format!("d{number}"), "a name changes nothing");
        }
        assert_eq!(Notes::read(&image).images.len(), NOTES_MAX);
        fs::write(&image, "of somebody else").unwrap();
        assert_eq!(Notes::read(&image).of(&image), None);
        fs::write(Notes::path(&image), "{").unwrap();
        assert_eq!(Notes::read(&image), Notes::default());
    }
}
