//! What a read-only mount refuses, and what failures look like.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use farseek_vfs::fuse::{MountError, MountOptions, mount};
use nix::errno::Errno;

use crate::fixture::{Core, Mounted, directory, file, link, python, tree};

#[test]
fn every_change_is_refused_as_read_only() {
    let tree = tree([
        ("file", file("x")),
        ("dir", directory([])),
        ("link", link("file")),
    ]);
    let Some(mounted) = Mounted::new("changes", &tree) else {
        return;
    };
    let script = "
f,d=M+'/file',M+'/dir'
tries=dict(
 write=lambda:os.open(f,os.O_WRONLY), readwrite=lambda:os.open(f,os.O_RDWR),
 trunc=lambda:os.open(f,os.O_WRONLY|os.O_TRUNC), create=lambda:os.open(M+'/new',os.O_CREAT|os.O_WRONLY),
 truncate=lambda:os.truncate(f,0), chmod=lambda:os.chmod(f,0), chown=lambda:os.chown(f,1,1),
 utime=lambda:os.utime(f), unlink=lambda:os.unlink(f), rmdir=lambda:os.rmdir(d),
 mkdir=lambda:os.mkdir(M+'/new'), symlink=lambda:os.symlink('x',M+'/new'),
 link=lambda:os.link(f,M+'/new'), rename=lambda:os.rename(f,M+'/new'),
 mknod=lambda:os.mknod(M+'/new'), setxattr=lambda:os.setxattr(f,'user.x',b'1'),
 removexattr=lambda:os.removexattr(f,'user.farseek.digest'))
for name,t in tries.items():
  try: t(); print(name,'worked')
  except OSError as e:
    if e.errno!=errno.EROFS: print(name,errno.errorcode[e.errno])
print('done')";
    assert_eq!(python(&mounted, script), "done\n");
    assert_eq!(fs::read(mounted.join("file")).unwrap(), b"x");
}

#[test]
fn harmless_calls_work() {
    let tree = tree([("file", file("x")), ("dir", directory([]))]);
    let Some(mounted) = Mounted::new("harmless calls", &tree) else {
        return;
    };
    let script = "
import fcntl, select
f=os.open(M+'/file',os.O_RDONLY)
os.fsync(f); os.fdatasync(f); fcntl.flock(f,fcntl.LOCK_SH)
fcntl.lockf(f,fcntl.LOCK_SH)
print(select.select([f],[],[],0)[0]==[f], os.access(M+'/file',os.R_OK), os.access(M+'/file',os.W_OK))
try: fcntl.ioctl(f,0x5401)
except OSError as e: print(errno.errorcode[e.errno])
d=os.open(M+'/dir',os.O_RDONLY|os.O_DIRECTORY); os.fsync(d)
os.close(f); os.close(d)";
    assert_eq!(python(&mounted, script), "True True False\nENOTTY\n");
}

#[test]
fn a_failed_read_is_an_error_and_a_later_one_may_succeed_elsewhere() {
    let tree = tree([("a", file("aaaa")), ("b", file("bbbb"))]);
    let Some(mounted) = Mounted::new("failed reads", &tree) else {
        return;
    };
    assert_eq!(fs::read(mounted.join("a")).unwrap(), b"aaaa");
    mounted.core.gate.break_down();
    let error = fs::read(mounted.join("b")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::EIO as i32));
    let file = fs::File::open(mounted.join("a")).unwrap();
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"aaaa");
}

#[test]
fn a_mount_point_that_cannot_be_is_named() {
    let core = Core::new(&tree([]));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "x").unwrap();
    for path in [
        file.as_path(),
        &directory.path().join("none"),
        Path::new(""),
    ] {
        let result = mount(
            Arc::clone(&core.vfs),
            path,
            &MountOptions::new("x"),
            core.runtime.handle().clone(),
        );
        let Err(error) = result else {
            panic!("mounted at {}", path.display())
        };
        assert!(matches!(error, MountError::Mountpoint { .. }), "{error}");
    }
}
