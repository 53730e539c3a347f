//! Archives of packages: `.tar.gz`, the same bytes whenever the same files are packed.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use tar::{Archive, Builder, EntryType, Header};

use super::content::{Content, MAX_FILE, MAX_TOTAL};

/// The largest archive, in bytes.
const MAX_ARCHIVE: u64 = 16 * 1024 * 1024;
/// How many times larger than the archive its content may be, once it is worth a look.
const MAX_RATIO: u64 = 200;
/// Up to so many bytes no ratio is suspicious.
const RATIO_FROM: u64 = 2 * 1024 * 1024;
/// The most entries that are read; folders count, files are bounded besides.
const MAX_ENTRIES: usize = 2048;
/// What a tar file ends with.
const END_MARK: u64 = 1024;

/// Writes the archive of a package.
pub(super) fn pack(content: &Content, to: impl Write) -> io::Result<()> {
    let gz = GzBuilder::new()
        .mtime(0)
        .operating_system(255)
        .write(to, Compression::best());
    let mut tar = Builder::new(gz);
    for (path, bytes) in content.iter() {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        tar.append_data(&mut header, path, &**bytes)?;
    }
    tar.into_inner()?.finish()?.flush()
}

/// Reads an archive into memory. A stream: of what is too much, nothing is kept.
///
/// # Errors
/// What was expected and found, and where in the archive.
pub(super) fn unpack(path: &Path) -> Result<Content, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let size = file.metadata().map_err(|error| error.to_string())?.len();
    if size > MAX_ARCHIVE {
        return Err(format!(
            "expected an archive of at most {} MiB, found {size} bytes",
            MAX_ARCHIVE >> 20
        ));
    }
    check_kind(path)?;
    let mut stream = Bounded {
        inner: GzDecoder::new(BufReader::new(file)),
        read: 0,
        bound: MAX_TOTAL * 2,
        compressed: size,
        zeros: 0,
        over: None,
    };
    let read = read_entries(&mut stream);
    if let Some(reason) = stream.over {
        return Err(reason);
    }
    let content = read?;
    // The rest holds the end mark and the checksum of the whole, and an archive that was cut off lacks them.
    let before = stream.read;
    let rest = io::copy(&mut stream, &mut io::sink());
    if let Some(reason) = stream.over {
        return Err(reason);
    }
    rest.map_err(|error| broken(&error))?;
    if stream.zeros < END_MARK {
        return Err("expected the end mark of an archive, found nothing or something else (is it cut off? pack or copy it again)".to_owned());
    }
    if stream.read - before > stream.zeros {
        return Err("expected nothing after the archive's end mark, found more data".to_owned());
    }
    Ok(content.without_outer_folder())
}

fn read_entries(stream: &mut impl Read) -> Result<Content, String> {
    let mut content = Content::default();
    let mut archive = Archive::new(stream);
    let entries = archive.entries().map_err(|error| broken(&error))?;
    for (number, entry) in entries.enumerate() {
        let mut entry = entry.map_err(|error| broken(&error))?;
        if number >= MAX_ENTRIES {
            return Err(format!(
                "expected at most {MAX_ENTRIES} entries, found more"
            ));
        }
        let path = entry.path_bytes().into_owned();
        let shown = String::from_utf8_lossy(&path)
            .chars()
            .take(200)
            .collect::<String>();
        match entry.header().entry_type() {
            EntryType::XGlobalHeader => continue,
            EntryType::Directory => {
                let folder = path.strip_suffix(b"/").unwrap_or(&path);
                if folder != b"." {
                    super::path::parse(folder)?;
                }
                continue;
            }
            EntryType::Regular => {}
            other => {
                return Err(format!(
                    "expected files and folders only, found {} at {shown:?} (put the file itself there)",
                    describe(other)
                ));
            }
        }
        let size = entry.size();
        content.check_room(&shown, size)?;
        let mut bytes = Vec::new();
        entry
            .by_ref()
            .take(MAX_FILE)
            .read_to_end(&mut bytes)
            .map_err(|error| broken(&error))?;
        if bytes.len() as u64 != size {
            return Err(format!(
                "expected {size} bytes of {shown:?}, found {} (is the archive cut off? pack or copy it again)",
                bytes.len()
            ));
        }
        content.add(&path, bytes)?;
    }
    Ok(content)
}

fn describe(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Symlink => "a symbolic link",
        EntryType::Link => "a hard link",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a pipe",
        EntryType::GNUSparse => "a file with holes",
        _ => "an entry of another kind",
    }
}

fn broken(error: &io::Error) -> String {
    format!(
        "expected a whole .tar.gz, found one that cannot be read: {error} (pack or copy it again)"
    )
}

/// Says what an archive of another kind is.
fn check_kind(path: &Path) -> Result<(), String> {
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(265).read_to_end(&mut start))
        .map_err(|error| error.to_string())?;
    let found = match &start[..] {
        [0x1f, 0x8b, ..] => return Ok(()),
        [] => "an empty file",
        [b'P', b'K', ..] => "a zip file",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "a .zst file",
        [0xfd, b'7', b'z', ..] => "an .xz file",
        start if start.get(257..262) == Some(b"ustar") => "a .tar file without compression",
        _ => "something else",
    };
    Err(format!(
        "expected a folder, or a .tar.gz archive as `patchbay plugin pack` writes it, found {found}"
    ))
}

/// A stream that ends with an error where there is more than any package holds.
struct Bounded<R> {
    inner: R,
    read: u64,
    bound: u64,
    compressed: u64,
    /// How many zeros came last.
    zeros: u64,
    over: Option<String>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read += count as u64;
        let zeros = buffer[..count]
            .iter()
            .rev()
            .take_while(|byte| **byte == 0)
            .count();
        self.zeros = match zeros == count {
            true => self.zeros + zeros as u64,
            false => zeros as u64,
        };
        if self.read > self.bound {
            self.over = Some(format!(
                "expected at most {} MiB in all files together, found more than {} MiB in the archive",
                MAX_TOTAL >> 20,
                self.bound >> 20
            ));
        } else if self.read > RATIO_FROM && self.read / self.compressed.max(1) > MAX_RATIO {
            self.over = Some(format!(
                "expected files that are at most {MAX_RATIO} times as large as their archive, found more than {} MiB in {} \
                 bytes (this is how archives are made that fill a disk)",
                self.read >> 20,
                self.compressed
            ));
        }
        match &self.over {
            Some(reason) => Err(io::Error::other(reason.clone())),
            None => Ok(count),
        }
    }
}

/// Writes an archive beside its place and renames it, so that no half of one is ever there.
pub(super) fn pack_to(content: &Content, path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    pack(content, &mut file)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644))?;
    }
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One entry as a tar file has it: a name that no careful writer would write, a kind, and bytes.
    fn entry(name: &[u8], kind: EntryType, bytes: &[u8]) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        let mut whole = header.as_bytes().to_vec();
        whole.extend(bytes);
        whole.resize(whole.len().div_ceil(512) * 512, 0);
        whole
    }

    fn zip(tar: &[u8]) -> Vec<u8> {
        let mut gz = GzBuilder::new().write(Vec::new(), Compression::best());
        gz.write_all(tar).expect("packed");
        gz.finish().expect("packed")
    }

    fn unpacked(bytes: &[u8]) -> Result<Content, String> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), bytes).expect("a file");
        unpack(file.path())
    }

    fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
        zip(&[entries.concat(), vec![0; 1024]].concat())
    }

    #[test]
    fn what_was_packed_is_unpacked_and_packed_the_same() {
        let mut content = Content::default();
        let long = format!("{}/{}.lua", "f".repeat(90), "g".repeat(90));
        for (path, bytes) in [
            ("plugin.lua", &b"return 1"[..]),
            ("a/b.lua", b""),
            (long.as_str(), b"x"),
        ] {
            content.add(path.as_bytes(), bytes.to_vec()).expect("added");
        }
        let packed = |content: &Content| {
            let mut bytes = Vec::new();
            pack(content, &mut bytes).expect("packed");
            bytes
        };
        let bytes = packed(&content);
        let again = unpacked(&bytes).expect("unpacked");
        assert_eq!(again, content);
        assert_eq!(packed(&again), bytes);
        for cut in [1, 9, bytes.len() / 2, bytes.len() - 9, bytes.len() - 1] {
            assert!(unpacked(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in [
            &b"../x"[..],
            b"/etc/passwd",
            b"C:\\x",
            b"a\\..\\x",
            b"a/../../x",
            "．．/x".as_bytes(),
            b"x./y",
            b"\xff",
        ] {
            for kind in [EntryType::Regular, EntryType::Directory] {
                let error = unpacked(&archive(&[entry(name, kind, b"")])).expect_err("refused");
                assert!(error.contains("inside the package"), "{name:?}: {error}");
            }
        }
    }

    #[test]
    fn only_files_and_folders_are_taken() {
        for (kind, says) in [
            (EntryType::Symlink, "symbolic link"),
            (EntryType::Link, "hard link"),
            (EntryType::Char, "device"),
            (EntryType::Block, "device"),
            (EntryType::Fifo, "pipe"),
            (EntryType::GNUSparse, ""),
            (EntryType::new(b'Z'), "another kind"),
        ] {
            let error =
                unpacked(&archive(&[entry(b"plugin.lua", kind, b"")])).expect_err("refused");
            assert!(error.contains(says), "{kind:?}: {error}");
        }
    }

    #[test]
    fn bombs_end_before_they_go_off() {
        let bomb = zip(&[
            entry(b"zeros", EntryType::Regular, &vec![0; 4 << 20]),
            vec![0; 60 << 20],
        ]
        .concat());
        assert!(bomb.len() < 200_000, "{}", bomb.len());
        let error = unpacked(&bomb).expect_err("refused");
        assert!(error.contains("times as large"), "{error}");
        let many: Vec<Vec<u8>> = (0..1000)
            .map(|number| entry(format!("f{number}").as_bytes(), EntryType::Regular, b""))
            .collect();
        let error = unpacked(&archive(&many)).expect_err("refused");
        assert!(error.contains("512 files"), "{error}");
        let folders: Vec<Vec<u8>> = (0..3000)
            .map(|number| entry(format!("f{number}/").as_bytes(), EntryType::Directory, b""))
            .collect();
        let error = unpacked(&archive(&folders)).expect_err("refused");
        assert!(
            error.contains("2048 entries") || error.contains("times as large"),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_whole_archive_is_refused() {
        let file = entry(b"plugin.lua", EntryType::Regular, b"return 1");
        for (bytes, says) in [
            (b"".to_vec(), "an empty file"),
            (b"PK\x03\x04".to_vec(), "a zip file"),
            (file.clone(), "without compression"),
            (b"return 1".to_vec(), "something else"),
            (zip(b"no tar at all"), "cannot be read"),
            (zip(&file), "end mark"),
            (
                zip(&[file.clone(), vec![0; 1024], file.clone()].concat()),
                "end mark",
            ),
            (zip(&file[..516]), "cut off"),
        ] {
            let error = unpacked(&bytes).expect_err("refused");
            assert!(error.contains(says), "{says}: {error}");
        }
        let twice = archive(&[file.clone(), file]);
        assert!(unpacked(&twice).expect_err("refused").contains("again"));
    }
}
