//! Trees on disk that look like real ones, the same for the same seed.
//!
//! They hold what breaks file systems: sizes just around every block and page boundary, names
//! that need escaping somewhere, links that lead nowhere, a directory of thousands. Deliberately
//! absent: what a commit must refuse (devices, sockets, names that are not UTF-8).

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use crate::seed::Random;

/// What a generated tree is made of.
#[derive(Debug, Clone)]
pub struct TreeOptions {
    /// Decides everything that is random.
    pub seed: u64,
    /// Directories with a handful of files each.
    pub directories: usize,
    /// Entries of the one big directory.
    pub crowd: usize,
    /// Bytes of the largest ordinary file.
    pub largest: u64,
    /// Size of a file that is a hole but for a few bytes, where there is to be one.
    pub sparse: Option<u64>,
}

impl Default for TreeOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            directories: 24,
            crowd: 2_000,
            largest: 9 << 20,
            sparse: None,
        }
    }
}

/// Scripts and programs whose name starts so take no input, change nothing and end at once.
///
/// The [oracle](crate::oracle) executes no others.
pub const RUNNABLE_PREFIX: &str = "run-";

/// Sizes around pages, the default block and the limit of payloads that are fetched whole.
const SIZES: [u64; 20] = [
    0, 1, 2, 511, 4095, 4096, 4097, 8191, 65_535, 65_536, 65_537, 131_072, 262_143, 262_144,
    262_145, 1_048_575, 1_048_576, 1_048_577, 2_097_153, 4_194_305,
];

const FILE_MODES: [u32; 12] = [
    0o400, 0o444, 0o555, 0o600, 0o640, 0o644, 0o664, 0o700, 0o711, 0o755, 0o4755, 0o1644,
];

const DIRECTORY_MODES: [u32; 5] = [0o700, 0o711, 0o755, 0o1777, 0o2755];

/// Names that something on the way might escape, fold or cut.
const NAMES: [&str; 18] = [
    "with space",
    " leading",
    "trailing ",
    "-dash",
    "--",
    "...",
    ".hidden",
    "new\nline",
    "tab\there",
    "back\\slash",
    "percent%41%2F",
    "hash#question?",
    "quote'\"`$HOME",
    "caf\u{e9}",
    "cafe\u{301}",
    "\u{65e5}\u{672c}\u{8a9e}",
    "\u{1f980}",
    "~1",
];

/// Makes the tree of `options` in the empty directory `root`.
///
/// # Errors
/// Whatever the file system says.
pub fn generate(root: &Path, options: &TreeOptions) -> io::Result<()> {
    sizes(root, options)?;
    names(root, options)?;
    directories(root, options)?;
    crowd(root, options)?;
    links(root)?;
    programs(root)?;
    if let Some(size) = options.sparse {
        sparse(&root.join("sparse"), size, options.seed)?;
    }
    Ok(())
}

/// Writes `size` bytes of the sequence of `seed` to a new file.
///
/// # Errors
/// Whatever the file system says.
pub fn write_random(path: &Path, size: u64, seed: u64) -> io::Result<()> {
    let mut random = Random::new(seed);
    let mut file = File::create_new(path)?;
    let mut piece = vec![0; 1 << 16];
    let mut left = size;
    while left > 0 {
        let len = usize::try_from(left.min(piece.len() as u64)).expect("at most a piece");
        random.fill(&mut piece[..len]);
        file.write_all(&piece[..len])?;
        left -= len as u64;
    }
    Ok(())
}

/// Makes a file of `size` that is a hole but for a few bytes at its ends and in its middle.
///
/// # Errors
/// Whatever the file system says.
pub fn sparse(path: &Path, size: u64, seed: u64) -> io::Result<()> {
    let file = File::create_new(path)?;
    file.set_len(size)?;
    let mut random = Random::new(seed);
    for offset in [0, size / 2, size.saturating_sub(8)] {
        let bytes = random.bits().to_le_bytes();
        let len = usize::try_from((size - offset).min(8)).expect("at most 8");
        file.write_all_at(&bytes[..len], offset)?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn sizes(root: &Path, options: &TreeOptions) -> io::Result<()> {
    let directory = root.join("sizes");
    fs::create_dir(&directory)?;
    let largest = [options.largest];
    for &size in SIZES
        .iter()
        .chain(&largest)
        .filter(|&&size| size <= options.largest)
    {
        let path = directory.join(format!("{size}.bin"));
        if !path.exists() {
            write_random(&path, size, options.seed ^ size)?;
        }
    }
    fs::write(directory.join("zeros"), vec![0; 300_000])?;
    // The same payload under two names and two modes.
    fs::copy(directory.join("65537.bin"), directory.join("copy"))?;
    set_mode(&directory.join("copy"), 0o755)
}

fn names(root: &Path, options: &TreeOptions) -> io::Result<()> {
    let directory = root.join("names \u{fc}");
    fs::create_dir(&directory)?;
    let mut random = Random::fork(options.seed, 1);
    let longest = "n".repeat(255);
    for name in NAMES.iter().copied().chain([longest.as_str()]) {
        let path = directory.join(name);
        fs::write(&path, format!("the file named {name}\n"))?;
        set_mode(&path, *random.pick(&FILE_MODES))?;
    }
    Ok(())
}

fn directories(root: &Path, options: &TreeOptions) -> io::Result<()> {
    let mut random = Random::fork(options.seed, 2);
    let mut made = vec![root.to_owned()];
    for number in 0..options.directories {
        let parent = random.pick(&made).clone();
        let directory = parent.join(format!("d{number}"));
        fs::create_dir(&directory)?;
        for file in 0..random.below(7) {
            let path = directory.join(format!(
                "f{file}.{}",
                random.pick(&["py", "so", "h", "txt"])
            ));
            let size = random.below(40_000);
            write_random(&path, size, random.bits())?;
            set_mode(&path, *random.pick(&FILE_MODES))?;
        }
        made.push(directory);
    }
    let deepest = (0..40).fold(root.join("deep"), |path, level| {
        path.join(format!("{level}"))
    });
    fs::create_dir_all(&deepest)?;
    fs::write(deepest.join("bottom"), "the bottom\n")?;
    // Last, so that a directory nobody may write does not stop its own children.
    for directory in &made[1..] {
        set_mode(directory, *random.pick(&DIRECTORY_MODES))?;
    }
    Ok(())
}

fn crowd(root: &Path, options: &TreeOptions) -> io::Result<()> {
    let directory = root.join("crowd");
    fs::create_dir(&directory)?;
    for number in 0..options.crowd {
        let name = directory.join(format!("entry-{number:06}-{}", "x".repeat(number % 60)));
        match number % 10 {
            8 => fs::create_dir(name)?,
            9 => symlink(format!("entry-{:06}-", number - 9), name)?,
            _ => fs::write(name, number.to_string())?,
        }
    }
    Ok(())
}

fn links(root: &Path) -> io::Result<()> {
    let directory = root.join("links");
    fs::create_dir_all(directory.join("sub/empty"))?;
    fs::write(directory.join("target"), "the target\n")?;
    symlink("target", directory.join("relative"))?;
    symlink("../sizes/262145.bin", directory.join("up"))?;
    symlink("/bin/sh", directory.join("absolute"))?;
    symlink("nowhere/at all", directory.join("dangling"))?;
    symlink("sub", directory.join("to-directory"))?;
    symlink("to-directory/../relative", directory.join("through"))?;
    symlink("loop", directory.join("loop"))?;
    symlink(".", directory.join("dot"))?;
    symlink("t".repeat(1_000), directory.join("long"))?;
    symlink("\u{fc}n\u{ef}code \u{1f980}", directory.join("unicode"))?;
    // A file and a link that share one payload.
    fs::write(directory.join("same-as-a-target"), "target")
}

fn programs(root: &Path) -> io::Result<()> {
    let directory = root.join("bin");
    fs::create_dir(&directory)?;
    let script = directory.join("run-script");
    fs::write(&script, "#!/bin/sh\necho \"script $# $*\"\nexit 7\n")?;
    set_mode(&script, 0o755)?;
    let padded = directory.join("run-long-script");
    let comment = "# a line of no meaning that makes the script longer than a block\n";
    fs::write(
        &padded,
        format!("#!/bin/sh\n{}echo the end $1\n", comment.repeat(20_000)),
    )?;
    set_mode(&padded, 0o555)?;
    fs::copy("/bin/echo", directory.join("run-echo"))?;
    set_mode(&directory.join("run-echo"), 0o755)?;
    fs::write(directory.join("run-nothing"), "#!/no/such/interpreter\n")?;
    set_mode(&directory.join("run-nothing"), 0o755)?;
    fs::write(directory.join("not-executable"), "#!/bin/sh\n")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{TreeOptions, generate};
    use crate::oracle;

    fn small(seed: u64) -> TreeOptions {
        TreeOptions {
            seed,
            directories: 5,
            crowd: 30,
            largest: 70_000,
            sparse: Some(1 << 30),
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_tree_and_another_one_does_not() {
        let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        for (dir, seed) in dirs.iter().zip([4, 4, 5]) {
            generate(dir.path(), &small(seed)).unwrap();
            fs::remove_file(dir.path().join("sparse")).unwrap();
        }
        oracle::compare_trees(dirs[0].path(), dirs[1].path()).unwrap();
        oracle::compare_trees(dirs[0].path(), dirs[2].path()).unwrap_err();
    }

    #[test]
    fn a_sparse_file_takes_no_room() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        generate(dir.path(), &small(1)).unwrap();
        let metadata = fs::metadata(dir.path().join("sparse")).unwrap();
        assert_eq!(metadata.size(), 1 << 30);
        assert!(metadata.blocks() * 512 < 1 << 20);
    }
}
