//! Writing to an environment: an overlay over its mount, whose upper directory takes the changes.
//!
//! The overlay is mounted over the very directory it has below it, so that the place is the same
//! whether a runtime is editable or not, and becomes editable while it is used.
//!
//! The upper directory is in memory, and gone with the namespace, or on a disk where it is to be
//! kept. Root's overlays mark what they hide in `trusted.*` attributes, as SPFS's do; in a
//! namespace of users the kernel allows `user.*` alone (`userxattr`). Files are never copied in
//! part and directories never moved by reference (`metacopy`, `redirect_dir`): an upper directory
//! is then understood by itself.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::error::{Result, RuntimeError};
use crate::kept::{Kept, KeptId};
use crate::live::{self, LiveBind};
use crate::namespace;
use crate::private;
use crate::upper;

/// The directory of a runtime in which the memory of an editable one is mounted.
const MEMORY: &str = "fs";

/// How directories beside the upper one begin that are in use for a moment only.
const UNDONE: &str = "undone-";

/// Where the changes of a runtime go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upper {
    /// To memory, at most as much as `size` says in the words of tmpfs(5): `2G`, `50%`.
    Memory {
        /// `None` is the kernel's choice: half of the machine's memory.
        size: Option<String>,
    },
    /// To this directory, which is kept.
    Kept(PathBuf),
}

impl Upper {
    /// For the runtime `name`: each has a directory of its own in the one that is given.
    pub fn of_runtime(&self, name: &OsStr) -> Self {
        match self {
            Self::Kept(place) => Self::Kept(place.join(name)),
            memory => memory.clone(),
        }
    }
}

/// The two directories of an overlay that are written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpperDirs {
    /// What has changed.
    pub upper: PathBuf,
    /// The kernel's own, on the same file system.
    pub work: PathBuf,
}

impl UpperDirs {
    /// Those of a runtime with the directory `directory`.
    pub fn of(upper: &Upper, directory: &Path) -> Self {
        let place = match upper {
            Upper::Memory { .. } => directory.join(MEMORY),
            Upper::Kept(place) => place.clone(),
        };
        Self {
            upper: place.join("upper"),
            work: place.join("work"),
        }
    }
}

/// What has been done to let a runtime be written to, as its host knows it.
#[derive(Debug)]
pub(crate) struct Edits {
    upper: Option<Upper>,
    /// Which directory is locked for it, where it is kept.
    kept: Option<KeptId>,
    /// Whether the overlay is there: one that could not be mounted anew is not, until it can be.
    is_mounted: bool,
    /// What is shown on whatever is mounted.
    live: Vec<LiveBind>,
    frozen: bool,
    /// How many directories have had a name of [`UNDONE`].
    resets: u32,
}

impl Edits {
    /// A runtime that begins with `upper`, for which `kept` is locked, and shows `live`.
    pub(crate) fn new(upper: Option<Upper>, kept: Option<KeptId>, live: Vec<LiveBind>) -> Self {
        Self {
            kept,
            is_mounted: upper.is_some(),
            upper,
            live,
            frozen: false,
            resets: 0,
        }
    }

    /// Lets the environment at `at` be written to, if it cannot be already.
    pub(crate) fn allow(
        &mut self,
        at: &Path,
        upper: &Upper,
        directory: &Path,
    ) -> Result<(), String> {
        let before = (self.is_mounted, self.frozen);
        self.frozen = false;
        match before {
            (true, true) => {
                if let Err(error) = remount(at, MsFlags::empty()) {
                    self.frozen = true;
                    return Err(error);
                }
            }
            (true, false) => {}
            (false, was_frozen) => {
                if let Err(error) = self.mount(at, upper, directory) {
                    self.frozen = was_frozen;
                    return Err(error);
                }
            }
        }
        live::allow_writing(at, &self.live, true)
    }

    /// Mounts the overlay, for the first time or where it could not be mounted anew.
    fn mount(&mut self, at: &Path, upper: &Upper, directory: &Path) -> Result<(), String> {
        let lifted = live::lift(at, &self.live)?;
        match &self.upper {
            None => {
                let made = make_editable(at, upper, self.kept, directory);
                made.map_err(|error| error.to_string())?;
                (self.upper, self.is_mounted) = (Some(upper.clone()), true);
            }
            Some(upper) => {
                let opened = open_dirs(upper, self.kept, directory);
                let (dirs, _kept) = opened.map_err(|error| error.to_string())?;
                self.mount_anew(at, &dirs)?;
            }
        }
        self.put(at, lifted)
    }

    /// Lets it be written to no more.
    pub(crate) fn freeze(&mut self, at: &Path) -> Result<(), String> {
        if self.upper.is_some() && !self.frozen {
            live::allow_writing(at, &self.live, false)?;
            // One that is not there is mounted as one that cannot be written to.
            let frozen = match self.is_mounted {
                true => remount(at, MsFlags::MS_RDONLY),
                false => Ok(()),
            };
            if let Err(error) = frozen {
                live::allow_writing(at, &self.live, true)?;
                return Err(error);
            }
            self.frozen = true;
        }
        Ok(())
    }

    /// Undoes changes: those of `paths`, or all of them. The overlay is mounted anew, for it must
    /// not see its upper directory change. What is open goes on with what it has.
    pub(crate) fn reset(
        &mut self,
        at: &Path,
        directory: &Path,
        paths: &[PathBuf],
    ) -> Result<(), String> {
        let Some(upper) = &self.upper else {
            return Err("the runtime is not editable: nothing has changed".to_owned());
        };
        let opened = open_dirs(upper, self.kept, directory);
        let (dirs, _kept) = opened.map_err(|error| error.to_string())?;
        let lifted = live::lift(at, &self.live)?;
        self.unmount(at)?;
        let undone = match paths {
            [] => self.undo_all(&dirs).map_err(|error| error.to_string()),
            paths => paths
                .iter()
                .try_for_each(|path| upper::undo(&dirs.upper, path)),
        };
        // Whether it was undone or not, it is to be there, and what is live in any case.
        let mounted = self.mount_anew(at, &dirs);
        let put = self.put(at, lifted);
        mounted.and(undone).and(put)
    }

    /// Moves what is mounted at `next` to `at`, in the place of what is there, and lets it be
    /// written to as that could be. Changes are undone. Where it cannot be moved the old one stays.
    pub(crate) fn replace(
        &mut self,
        at: &Path,
        directory: &Path,
        next: &Path,
    ) -> Result<(), String> {
        let lifted = live::lift(at, &self.live)?;
        let upper = self.upper.as_ref();
        let opened = upper.map(|upper| open_dirs(upper, self.kept, directory));
        let opened = opened.transpose();
        let (dirs, _kept) = opened.map_err(|error| error.to_string())?.unzip();
        self.unmount(at)?;
        let swapped = swap(at, next);
        let covered = dirs.map_or(Ok(()), |dirs| {
            let undone = match &swapped {
                Ok(()) => self.undo_all(&dirs).map_err(|error| error.to_string()),
                Err(_) => Ok(()),
            };
            self.mount_anew(at, &dirs).and(undone)
        });
        // Whichever environment it is by now, and whatever failed, what is live is to be there.
        let put = self.put(at, lifted);
        swapped.and(covered).and(put)
    }

    /// Takes the overlay away, where there is one.
    fn unmount(&mut self, at: &Path) -> Result<(), String> {
        if self.is_mounted {
            detach(at)?;
            self.is_mounted = false;
        }
        Ok(())
    }

    /// Mounts the overlay over what is at `at`, to be written to as it could be.
    fn mount_anew(&mut self, at: &Path, dirs: &UpperDirs) -> Result<(), String> {
        mount_overlay(at, dirs).map_err(|error| {
            format!(
                "what was changed is not shown, and nothing can be changed: {error}; what is in the \
                 way is to be removed, then `farseek edit` shows it again"
            )
        })?;
        self.is_mounted = true;
        if self.frozen
            && let Err(error) = remount(at, MsFlags::MS_RDONLY)
        {
            self.frozen = false;
            return Err(error);
        }
        Ok(())
    }

    /// Shows again what is live.
    fn put(&self, at: &Path, lifted: Vec<live::Lifted>) -> Result<(), String> {
        let writable = self.upper.is_some() && !self.frozen;
        live::put(at, lifted, &self.live, writable)
    }

    /// Puts the changes aside, so that what is open is not disturbed, and removes them.
    fn undo_all(&mut self, dirs: &UpperDirs) -> io::Result<()> {
        let mode = fs::metadata(&dirs.upper)?.permissions();
        let next = self.spare(dirs);
        fs::create_dir(&next)?;
        fs::set_permissions(&next, mode)?;
        let aside = self.spare(dirs);
        fs::rename(&dirs.upper, &aside)?;
        if let Err(error) = fs::rename(&next, &dirs.upper) {
            fs::rename(&aside, &dirs.upper)?;
            return Err(error);
        }
        upper::remove(&aside)
    }

    /// A path beside the upper directory at which nothing is.
    fn spare(&mut self, dirs: &UpperDirs) -> PathBuf {
        loop {
            self.resets += 1;
            let name = format!("{UNDONE}{}", self.resets);
            let path = dirs.work.with_file_name(name);
            if path.symlink_metadata().is_err() {
                return path;
            }
        }
    }
}

/// Moves what is mounted at `next` to `at`, in the place of what is there, which stays where that
/// cannot be done.
fn swap(at: &Path, next: &Path) -> Result<(), String> {
    let old = live::copy_of(at).map_err(|error| error.to_string())?;
    detach(at)?;
    let moved = mount(Some(next), at, None::<&str>, MsFlags::MS_MOVE, None::<&str>);
    moved.map_err(|errno| match live::restore(at, &old) {
        Ok(()) => errno.desc().to_owned(),
        Err(error) => format!(
            "{}, and the old environment cannot be shown again: {error}; end the runtime",
            errno.desc()
        ),
    })
}

/// Takes away what is mounted at `at`, the topmost. Whoever has something of it open keeps that.
fn detach(at: &Path) -> Result<(), String> {
    let detached = umount2(at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
    detached.map_err(|errno| errno.desc().to_owned())
}

/// Changes whether what is mounted at `at` can be written to.
fn remount(at: &Path, flags: MsFlags) -> Result<(), String> {
    let flags =
        flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    match mount(None::<&str>, at, None::<&str>, flags, None::<&str>) {
        Ok(()) => Ok(()),
        Err(Errno::EBUSY) => Err("files in it are open for writing: close them first".to_owned()),
        Err(errno) => Err(errno.desc().to_owned()),
    }
}

/// Makes what is mounted at `at` editable, in the namespace of mounts of this process.
///
/// # Errors
/// The kernel refuses, in its words.
pub(crate) fn make_editable(
    at: &Path,
    upper: &Upper,
    kept: Option<KeptId>,
    directory: &Path,
) -> Result<()> {
    let make = || {
        if let Upper::Memory { size } = upper {
            mount_memory(&directory.join(MEMORY), size.as_deref())?;
        }
        let (dirs, kept) = open_dirs(upper, kept, directory)?;
        if let Some(kept) = &kept {
            keep(&kept.path(), namespace::is_of_users())?;
            remove_undone(&kept.path())?;
        }
        make_dirs(at, &dirs)?;
        mount_overlay(at, &dirs)
    };
    make().map_err(|error| RuntimeError::Overlay {
        path: at.to_owned(),
        reason: error.to_string(),
    })
}

/// The directories of an overlay, by paths that lead there as long as what is returned beside them
/// lives: where changes are kept others may write, and names may mean something else at any time. It
/// is the directory that was locked, or none.
fn open_dirs(
    upper: &Upper,
    locked: Option<KeptId>,
    directory: &Path,
) -> io::Result<(UpperDirs, Option<Kept>)> {
    match upper {
        Upper::Memory { .. } => Ok((UpperDirs::of(upper, directory), None)),
        Upper::Kept(place) => {
            let locked = locked.ok_or_else(|| io::Error::other("nobody has locked it"))?;
            let kept = Kept::open_same(place, locked)?;
            let open = Upper::Kept(kept.path());
            Ok((UpperDirs::of(&open, directory), Some(kept)))
        }
    }
}

/// The changes of a runtime, to be read: by whom the path is asked for as long as this lives.
#[derive(Debug)]
pub struct Changes {
    path: PathBuf,
    _kept: Option<Kept>,
}

impl Changes {
    /// Those of the runtime with this `directory`, which go to `upper`.
    ///
    /// # Errors
    /// They are not there, or somebody else may put something in their place.
    pub fn open(upper: &Upper, directory: &Path) -> io::Result<Self> {
        let (path, kept) = match upper {
            Upper::Memory { .. } => {
                private::check_runtime(directory)?;
                (UpperDirs::of(upper, directory).upper, None)
            }
            Upper::Kept(place) => {
                let kept = Kept::open(place)?;
                let open = Upper::Kept(kept.path());
                (UpperDirs::of(&open, directory).upper, Some(kept))
            }
        };
        match path.symlink_metadata()?.is_dir() {
            true => Ok(Self { path, _kept: kept }),
            false => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// A path that leads to them.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The name of the file that says which marks an upper directory that is kept has.
const MARKS: &str = "marks";

/// Sees that a directory that is kept is one that can be used, and notes for whom it is where it is
/// new: root's overlay does not know the marks of others, and would show what they have removed.
fn keep(place: &Path, of_users: bool) -> io::Result<()> {
    let ours = match of_users {
        true => "user",
        false => "trusted",
    };
    match fs::read_to_string(place.join(MARKS)) {
        Ok(marks) if marks == ours => Ok(()),
        Ok(_) => Err(io::Error::other(match of_users {
            true => "it was made by root, and only root can run it again",
            false => "it was made by a user who is not root, and only that user can run it again",
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::write(place.join(MARKS), ours),
        Err(error) => Err(error),
    }
}

/// Removes what a runtime has left in `place` that was killed while it undid changes. One that
/// cannot be removed is in nobody's way.
fn remove_undone(place: &Path) -> io::Result<()> {
    for entry in fs::read_dir(place)? {
        let entry = entry?;
        if entry.file_name().as_bytes().starts_with(UNDONE.as_bytes())
            && let Err(error) = upper::remove(&entry.path())
        {
            tracing::warn!(name = ?entry.file_name(), %error, "left behind");
        }
    }
    Ok(())
}

fn mount_memory(at: &Path, size: Option<&str>) -> io::Result<()> {
    let data = match size {
        Some(size) => format!("mode=755,size={size}"),
        None => "mode=755".to_owned(),
    };
    fs::create_dir_all(at)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let (name, kind) = (Some("farseek-upper"), Some("tmpfs"));
    Ok(mount(name, at, kind, flags, Some(data.as_str()))?)
}

fn make_dirs(at: &Path, dirs: &UpperDirs) -> io::Result<()> {
    fs::create_dir_all(&dirs.upper)?;
    // The root of the overlay is this directory, and looks as it did.
    fs::set_permissions(&dirs.upper, fs::metadata(at)?.permissions())?;
    fs::create_dir_all(&dirs.work)
}

/// Mounts the overlay over what it has below it.
pub(crate) fn mount_overlay(at: &Path, dirs: &UpperDirs) -> io::Result<()> {
    let data = options(at, dirs, namespace::is_of_users());
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    // Bytes, not text: a path may be anything.
    let data = OsString::from_vec(data);
    let (name, kind) = (Some("farseek-edit"), Some("overlay"));
    Ok(mount(name, at, kind, flags, Some(data.as_os_str()))?)
}

/// The options of an overlay, as mount(2) takes them.
fn options(lower: &Path, dirs: &UpperDirs, of_users: bool) -> Vec<u8> {
    let mut data = b"lowerdir=".to_vec();
    data.extend(escaped(lower));
    data.extend(b",upperdir=");
    data.extend(escaped(&dirs.upper));
    data.extend(b",workdir=");
    data.extend(escaped(&dirs.work));
    data.extend_from_slice(match of_users {
        true => b",userxattr,index=off".as_slice(),
        false => b",index=off,metacopy=off,redirect_dir=nofollow".as_slice(),
    });
    data
}

/// A path with what the overlay's options are parted by made harmless.
fn escaped(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(path.as_os_str().len());
    for &byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b',' | b':') {
            bytes.push(b'\\');
        }
        bytes.push(byte);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_directory_is_for_those_who_know_its_marks() {
        let place = tempfile::tempdir().unwrap();
        keep(place.path(), true).unwrap();
        keep(place.path(), true).unwrap();
        let said = keep(place.path(), false).unwrap_err().to_string();
        assert!(said.contains("not root"), "{said}");
    }

    #[test]
    fn an_overlay_is_made_of_what_was_locked() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("durable_edits/name");
        let locked = Kept::make(&place).unwrap().id().unwrap();
        let upper = Upper::Kept(place.clone());
        let open = |locked| open_dirs(&upper, locked, Path::new("/r")).map(drop);
        open(Some(locked)).unwrap();
        assert!(open(None).is_err());
        fs::rename(&place, root.path().join("aside")).unwrap();
        Kept::make(&place).unwrap();
        assert!(open(Some(locked)).is_err());
    }

    #[test]
    fn changes_are_read_where_nobody_else_can_put_something() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("name");
        let memory = Upper::Memory { size: None };
        let upper = UpperDirs::of(&memory, &directory).upper;
        fs::create_dir_all(&upper).unwrap();
        let mode = |path: &Path, mode| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            fs::set_permissions(path, mode).unwrap();
        };
        assert_eq!(Changes::open(&memory, &directory).unwrap().path(), upper);
        for open in [root.path(), &directory] {
            mode(open, 0o777);
            assert!(Changes::open(&memory, &directory).is_err());
            mode(open, 0o700);
        }
        fs::remove_dir(&upper).unwrap();
        std::os::unix::fs::symlink("/etc", &upper).unwrap();
        assert!(Changes::open(&memory, &directory).is_err());
    }

    #[test]
    fn undone_changes_go_whatever_was_left_beside_them() {
        let place = tempfile::tempdir().unwrap();
        let dirs = UpperDirs::of(&Upper::Kept(place.path().into()), Path::new("/r"));
        fs::create_dir_all(dirs.upper.join("changed")).unwrap();
        fs::create_dir_all(place.path().join("undone-1/closed")).unwrap();
        fs::create_dir(&dirs.work).unwrap();
        Edits::new(None, None, Vec::new()).undo_all(&dirs).unwrap();
        assert_eq!(fs::read_dir(&dirs.upper).unwrap().count(), 0);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 3);
        remove_undone(place.path()).unwrap();
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
        assert!(dirs.upper.is_dir() && dirs.work.is_dir());
    }

    #[test]
    fn options_are_what_the_kernel_parses() {
        let upper = Upper::Memory { size: None };
        let dirs = UpperDirs::of(&upper, Path::new(r"/r/a,b:c\d"));
        let of_root = options(Path::new("/spfs"), &dirs, false);
        assert_eq!(
            String::from_utf8(of_root).unwrap(),
            r"lowerdir=/spfs,upperdir=/r/a\,b\:c\\d/fs/upper,workdir=/r/a\,b\:c\\d/fs/work,index=off,metacopy=off,redirect_dir=nofollow"
        );
        let dirs = UpperDirs::of(&Upper::Kept("/k".into()), Path::new("/r"));
        let of_users = options(Path::new("/spfs"), &dirs, true);
        assert_eq!(
            String::from_utf8(of_users).unwrap(),
            "lowerdir=/spfs,upperdir=/k/upper,workdir=/k/work,userxattr,index=off"
        );
    }
}
