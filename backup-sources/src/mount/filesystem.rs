//! The kernel's requests, each answered by a task of the caller's runtime.

use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::listing::OpenDirectory;
use super::state::{Answer, State};

/// Requests answered at once; the kernel keeps further ones.
const REQUESTS_MAX: usize = 64;
/// After which time a request fails whatever it waits for. Stores give up earlier by themselves.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(300);
/// For how long the kernel may keep what never changes.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// For how long it may keep what stands above the snapshots.
const A_MOMENT: Duration = Duration::from_secs(1);
/// Bytes that the kernel asks for in one request.
const REQUEST_BYTES_MAX: u32 = 1024 * 1024;

/// The kernel's side of a mount.
#[derive(Debug)]
pub(super) struct Requests {
    state: Arc<State>,
    runtime: tokio::runtime::Handle,
    allow_other: bool,
    begun: async_channel::Sender<()>,
    ended: async_channel::Receiver<()>,
}

/// A request that is being answered.
struct Slot(async_channel::Receiver<()>);

impl Drop for Slot {
    fn drop(&mut self) {
        let _ = self.0.try_recv();
    }
}

impl Requests {
    /// Answers from `state` on the runtime of the caller.
    pub(super) fn new(state: Arc<State>, runtime: tokio::runtime::Handle, allow_other: bool) -> Self {
        let (begun, ended) = async_channel::bounded(REQUESTS_MAX);
        Self { state, runtime, allow_other, begun, ended }
    }

    /// Answers in a task. A task that ends without an answer answers `EIO`: that is what a reply does when it is dropped.
    fn answer<F: Future<Output = ()> + Send + 'static>(&self, work: impl FnOnce(Arc<State>) -> F) {
        if self.begun.send_blocking(()).is_err() {
            return;
        }
        let slot = Slot(self.ended.clone());
        let work = work(self.state.clone());
        self.runtime.spawn(async move {
            work.await;
            drop(slot);
        });
    }
}

/// The result of some work, or `EIO` when it takes too long.
async fn timely<T>(work: impl Future<Output = Answer<T>>) -> Answer<T> {
    tokio::time::timeout(REQUEST_TIME_MAX, work).await.unwrap_or(Err(Errno::EIO))
}

fn keep_for(changes: bool) -> Duration {
    if changes { A_MOMENT } else { FOREVER }
}

impl Filesystem for Requests {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // What a kernel does not have it does without.
        let _ = config.set_max_write(REQUEST_BYTES_MAX);
        let _ = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        let _ = config.add_capabilities(InitFlags::FUSE_DO_READDIRPLUS);
        let _ = config.add_capabilities(InitFlags::FUSE_READDIRPLUS_AUTO);
        if self.allow_other && config.add_capabilities(InitFlags::FUSE_POSIX_ACL).is_err() {
            // Modes alone would give others more than the access lists do.
            return Err(io::Error::other("this kernel does not check access lists for FUSE"));
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.as_bytes().to_vec();
        self.answer(async move |state| match timely(state.lookup(parent.0, &name)).await {
            Ok((attr, changes)) => reply.entry(&keep_for(changes), &attr, Generation(0)),
            Err(error) => reply.error(error),
        });
    }

    fn forget(&self, _: &Request, inode: INodeNo, lookups: u64) {
        self.state.nodes().forget(inode.0, lookups);
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.answer(async move |state| match timely(state.attr(inode.0)).await {
            Ok((attr, changes)) => reply.attr(&keep_for(changes), &attr),
            Err(error) => reply.error(error),
        });
    }

    fn readlink(&self, _: &Request, inode: INodeNo, reply: ReplyData) {
        self.answer(async move |state| match timely(state.target(inode.0)).await {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(error),
        });
    }

    fn open(&self, _: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            return reply.error(Errno::EROFS);
        }
        self.answer(async move |state| match timely(state.open(inode.0)).await {
            Ok(handle) => {
                let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
                reply.opened(FileHandle(handle), flags);
            }
            Err(error) => reply.error(error),
        });
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let range = offset..offset.saturating_add(size.into());
        self.answer(async move |state| match timely(state.read(handle.0, range)).await {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.state.close(handle.0);
        reply.ok();
    }

    fn opendir(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.answer(async move |state| match timely(state.open_directory(inode.0)).await {
            Ok((handle, true)) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Ok((handle, false)) => {
                let flags = FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE;
                reply.opened(FileHandle(handle), flags);
            }
            Err(error) => reply.error(error),
        });
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.answer(async move |state| {
            let listed = timely(async {
                let directory = state.directory(handle.0)?;
                let mut directory = directory.lock().await;
                let mut at = offset;
                while let Some((inode, kind, name)) = brief(&state, &mut directory, at, at > offset).await? {
                    at = at.saturating_add(1);
                    if reply.add(INodeNo(inode), at, kind, OsStr::from_bytes(&name)) {
                        break;
                    }
                }
                Ok(())
            });
            match listed.await {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(error),
            }
        });
    }

    fn readdirplus(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.answer(async move |state| {
            let listed = timely(async {
                let directory = state.directory(handle.0)?;
                let mut directory = directory.lock().await;
                let mut at = offset;
                while let Some((inode, kind, name)) = brief(&state, &mut directory, at, at > offset).await? {
                    let (attr, keep) = details(&state, &mut directory, at, inode, kind).await?;
                    at = at.saturating_add(1);
                    let name = OsStr::from_bytes(&name);
                    if reply.add(attr.ino, at, name, &keep, &attr, Generation(0)) {
                        // The kernel is not told of this one, and will not forget it.
                        if at > PLACES_OF_ITSELF {
                            state.nodes().forget(attr.ino.0, 1);
                        }
                        break;
                    }
                }
                Ok(())
            });
            match listed.await {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(error),
            }
        });
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.state.close(handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(0, 0, 0, 0, 0, 4096, 255, 4096);
    }

    fn getxattr(&self, _: &Request, inode: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let name = name.as_bytes().to_vec();
        self.answer(async move |state| answer_xattr(timely(state.xattr(inode.0, &name)).await, size, reply));
    }

    fn listxattr(&self, _: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        self.answer(async move |state| answer_xattr(timely(state.xattr_names(inode.0)).await, size, reply));
    }

    // Without `allow_other` whoever mounted may read everything; with it the kernel checks, and does not ask.
    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    // The kernel refuses whatever would write, because it is mounted read-only. These refuse it also where root has changed
    // that (`mount -o remount,rw`).

    fn setattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: INodeNo,
        _: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    fn create(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.error(Errno::EROFS);
    }

    fn setxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }
}

/// Every directory begins with itself and the one above.
const PLACES_OF_ITSELF: u64 = 2;

/// Inode, kind and name at an offset of a directory; none at the end. A failure ends a listing that is not empty: the
/// kernel meets it again when it asks for the rest.
async fn brief(
    state: &State,
    directory: &mut OpenDirectory,
    offset: u64,
    some: bool,
) -> Answer<Option<(u64, FileType, Vec<u8>)>> {
    let node = directory.node();
    let Some(place) = offset.checked_sub(PLACES_OF_ITSELF) else {
        let own = offset == 0;
        let inode = if own { state.nodes().number(&node) } else { state.parent(&node) };
        return Ok(Some((inode, FileType::Directory, if own { b".".to_vec() } else { b"..".to_vec() })));
    };
    match state.listed(directory, place).await {
        Ok(Some(listed)) => {
            let (inode, kind) = state.brief(directory, &listed);
            Ok(Some((inode, kind, listed.name().to_vec())))
        }
        Ok(None) => Ok(None),
        Err(_) if some => Ok(None),
        Err(error) => Err(error),
    }
}

/// What `stat` says of the entry at an offset, and for how long; the kernel takes it as looked up.
async fn details(
    state: &State,
    directory: &mut OpenDirectory,
    offset: u64,
    inode: u64,
    kind: FileType,
) -> Answer<(FileAttr, Duration)> {
    let unknown = state.attr_unknown(inode, kind);
    let Some(place) = offset.checked_sub(PLACES_OF_ITSELF) else {
        return Ok((unknown, Duration::ZERO));
    };
    let Some(listed) = state.listed(directory, place).await? else { return Ok((unknown, Duration::ZERO)) };
    let (node, attr, keep) = match state.listed_attr(directory, &listed).await {
        Ok((node, attr, changes)) => (node, attr, keep_for(changes)),
        // It is listed all the same; whoever looks at it is told.
        Err(_) => {
            let node = state.brief_node(directory, &listed).ok_or(Errno::EIO)?;
            (node, unknown, Duration::ZERO)
        }
    };
    state.nodes().remember(&node)?;
    Ok((attr, keep))
}

/// The length, or the value where there is room for it.
fn answer_xattr(found: Answer<Vec<u8>>, size: u32, reply: ReplyXattr) {
    match found {
        Ok(value) => match u32::try_from(value.len()) {
            Ok(len) if size == 0 => reply.size(len),
            Ok(len) if len <= size => reply.data(&value),
            _ => reply.error(Errno::ERANGE),
        },
        Err(error) => reply.error(error),
    }
}
