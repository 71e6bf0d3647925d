//! Looking for what must never leave a custodian's house: identities and content, in any usual disguise (R1).
//!
//! A word is searched for as UTF-8 and as GBK; each of these also in hexadecimal (both cases) and base64 (all
//! three alignments); and as the unsalted BLAKE3, SHA-256 and SM3 of it, raw and in hexadecimal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::Digest as _;

/// Words and all their disguises, ready to be searched for in one pass.
pub struct Canaries {
    search: AhoCorasick,
    names: Vec<String>,
}

/// A word found where it must not be.
#[derive(Debug, PartialEq, Eq)]
pub struct Leak {
    /// The place: a file or a table.
    pub place: String,
    /// The word and its disguise.
    pub what: String,
}

impl Canaries {
    /// Prepares the search; words shorter than four bytes would be found by chance and are refused.
    pub fn new<'a>(words: impl IntoIterator<Item = &'a str>) -> Canaries {
        let (mut needles, mut names) = (Vec::new(), Vec::new());
        for word in words {
            assert!(word.len() >= 4, "{word:?} is too short to be searched for");
            for (form, needle) in disguises(word) {
                names.push(format!("{word} as {form}"));
                needles.push(needle);
            }
        }
        let search = AhoCorasick::new(needles).expect("a few thousand short needles fit");
        Canaries { search, names }
    }

    /// The first word in the bytes.
    pub fn find(&self, place: &str, bytes: &[u8]) -> Option<Leak> {
        let found = self.search.find(bytes)?;
        Some(Leak { place: place.to_string(), what: self.names[found.pattern().as_usize()].clone() })
    }

    /// Searches every file below a folder, byte for byte.
    pub fn search_files(&self, dir: &Path) -> io::Result<Vec<Leak>> {
        let mut leaks = Vec::new();
        for file in files(dir)? {
            leaks.extend(self.find(&file.display().to_string(), &fs::read(&file)?));
        }
        Ok(leaks)
    }

    /// Searches every key and value of a RocksDB database through RocksDB, since tables are compressed.
    /// Answers what was found, and how many entries were read.
    pub fn search_database(&self, dir: &Path) -> Result<(Vec<Leak>, usize), rocksdb::Error> {
        let options = rocksdb::Options::default();
        let families = rocksdb::DB::list_cf(&options, dir)?;
        let db = rocksdb::DB::open_cf_for_read_only(&options, dir, &families, false)?;
        let (mut leaks, mut entries) = (Vec::new(), 0);
        for family in &families {
            let handle = db.cf_handle(family).expect("the family was just opened");
            for entry in db.iterator_cf(handle, rocksdb::IteratorMode::Start) {
                let (key, value) = entry?;
                entries += 1;
                let place = format!("{} table {family}", dir.display());
                leaks.extend(self.find(&place, &key));
                leaks.extend(self.find(&place, &value));
            }
        }
        Ok((leaks, entries))
    }
}

fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

fn disguises(word: &str) -> Vec<(String, Vec<u8>)> {
    let mut forms = Vec::new();
    let (gbk, _, _) = encoding_rs::GBK.encode(word);
    let mut encodings = vec![("UTF-8", word.as_bytes().to_vec())];
    if gbk != word.as_bytes() {
        encodings.push(("GBK", gbk.to_vec()));
    }
    for (encoding, bytes) in encodings {
        for (alignment, text) in base64_forms(&bytes) {
            forms.push((format!("base64 of {encoding}, alignment {alignment}"), text));
        }
        forms.push((format!("hexadecimal of {encoding}"), hex::encode(&bytes).into_bytes()));
        forms.push((format!("upper hexadecimal of {encoding}"), hex::encode_upper(&bytes).into_bytes()));
        forms.push((encoding.to_string(), bytes));
    }
    let hashes: [(&str, Vec<u8>); 3] = [
        ("BLAKE3", blake3::hash(word.as_bytes()).as_bytes().to_vec()),
        ("SHA-256", sha2::Sha256::digest(word).to_vec()),
        ("SM3", sm3::Sm3::digest(word).to_vec()),
    ];
    for (name, digest) in hashes {
        forms.push((format!("{name} in hexadecimal"), hex::encode(&digest).into_bytes()));
        forms.push((name.to_string(), digest));
    }
    forms
}

/// Base64 of the bytes wherever they stand in a longer text: without the characters that neighbours share.
fn base64_forms(bytes: &[u8]) -> Vec<(usize, Vec<u8>)> {
    (0..3)
        .map(|before| {
            let mut padded = vec![0; before];
            padded.extend_from_slice(bytes);
            let text = STANDARD_NO_PAD.encode(&padded).into_bytes();
            let first = (before * 8).div_ceil(6);
            let last = padded.len() * 8 / 6;
            (before, text[first..last].to_vec())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R1: the search would notice a build that leaks, in whatever disguise.
    #[test]
    fn r1_a_leak_in_any_disguise_is_caught() {
        let canaries = Canaries::new(["990101199405302026", "林晓岚"]);
        for word in ["990101199405302026", "林晓岚"] {
            for (form, bytes) in disguises(word) {
                let mut text = b"{\"before\":\"".to_vec();
                text.extend_from_slice(&bytes);
                text.extend_from_slice(b"\"}");
                assert!(canaries.find("here", &text).is_some(), "{word} as {form}");
            }
            for before in 0..5 {
                let whole = format!("{}{word}{}", "x".repeat(before), "y".repeat(7));
                let text = STANDARD_NO_PAD.encode(whole);
                assert!(canaries.find("here", text.as_bytes()).is_some(), "{word} in base64 after {before}");
            }
        }
        assert_eq!(canaries.find("here", b"nothing to be seen"), None);
    }

    /// R1: also inside a compressed table of a database.
    #[test]
    fn r1_a_leaking_database_is_caught() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let db = rocksdb::DB::open_default(dir.path()).expect("a new database");
        db.put(b"k", "the patient 林晓岚".repeat(50)).expect("a write");
        db.flush().expect("a flush");
        drop(db);
        let canaries = Canaries::new(["林晓岚"]);
        let (leaks, entries) = canaries.search_database(dir.path()).expect("readable");
        assert_eq!((leaks.len(), entries), (1, 1));
    }
}
