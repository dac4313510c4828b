//! What stores in memory show: names, stamps, listings out of order, content that changes, runs that are dropped.

use std::io::ErrorKind as Io;
use std::sync::Arc;
use std::time::Duration;

use backup_core::source::{BlockingContent, Content, ContentReader};
use backup_core::{Entry, EntryKind, ErrorKind, Item, JobContext, Source, testing};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Attribute, Attributes, ObjectStore, ObjectStoreExt, PutOptions};

use super::BucketSource;
use super::keys::hidden;

async fn items(source: &BucketSource) -> Vec<Item> {
    let mut run = source.begin(&JobContext::new()).await.unwrap();
    let mut all = Vec::new();
    loop {
        let items = run.next(7).await.unwrap();
        if items.is_empty() {
            return all;
        }
        all.extend(items);
    }
}

fn told(items: &[Item]) -> Vec<String> {
    let text = |item: &Item| match item {
        Item::Entry(entry) if entry.kind == EntryKind::Directory => format!("{}: directory", entry.name),
        Item::Entry(entry) => entry.name.to_string(),
        Item::Skipped(skipped) => format!("{}: skipped", skipped.name),
    };
    let mut told: Vec<_> = items.iter().map(text).collect();
    told.sort();
    told
}

#[tokio::test]
async fn a_bucket_keeps_the_contract_of_sources() {
    let store = Arc::new(InMemory::new());
    for number in 0..40_usize {
        let path = Path::from(format!("in/{}/{number}", number % 3));
        store.put(&path, vec![b'x'; number * 300_000].into()).await.unwrap();
    }
    store.put(&Path::from("in-between"), "no".into()).await.unwrap();
    let source = BucketSource::new(store, "in").unwrap();
    assert_eq!(items(&source).await.len(), 40);
    testing::source::conformance(&source).await.unwrap();
    testing::source::conformance(&source.with_ordered_listing(true)).await.unwrap();
}

#[tokio::test]
async fn odd_keys_are_stored_or_named() {
    let store = Arc::new(InMemory::new());
    let keys = [
        "p/a", "p/a-b", "p/a/", "p/a/b", "p/dir/", "p/full/", "p/x//y", "p/x/../y", "p/", "p", "p/t\tab",
        "p/ü %2F",
    ];
    for key in keys {
        let path = Path::parse(hidden(key).unwrap_or_else(|| key.to_owned())).unwrap();
        let content = if key.ends_with('/') && key != "p/full/" { "" } else { "content" };
        store.put(&path, content.into()).await.unwrap();
    }
    // What has no path stands at the top of this store, so it is listed as a whole.
    let source = BucketSource::new(store.clone(), "").unwrap();
    let expected = [
        "p",
        "p/a",
        "p/a-b",
        "p/a/b",
        "p/full/: skipped",
        "p/t\tab: skipped",
        "p/x/../y: skipped",
        "p/x//y: skipped",
        "p/ü %2F",
    ];
    assert_eq!(told(&items(&source).await), expected);
    // In memory, what stands for it comes after `p/a/b`; a cloud lists it before.
    store.delete(&Path::parse(hidden("p/a/").unwrap()).unwrap()).await.unwrap();
    let source = BucketSource::new(store, "p").unwrap().with_ordered_listing(true);
    assert_eq!(told(&items(&source).await), ["a", "a-b", "a/b", "dir: directory", "full/: skipped", "ü %2F"]);
}

#[tokio::test]
async fn entries_say_what_the_store_says() {
    let store = Arc::new(InMemory::new());
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::ContentType, "text/plain".into());
    attributes.insert(Attribute::Metadata("owner".into()), "me".into());
    let options = PutOptions { attributes, ..PutOptions::default() };
    store.put_opts(&Path::from("a"), "content".into(), options).await.unwrap();
    let source = BucketSource::new(store.clone(), "").unwrap();
    let stamp = |items: Vec<Item>| match items.into_iter().next() {
        Some(Item::Entry(entry)) => (entry.stamp.unwrap(), entry.attributes),
        other => unreachable!("{other:?}"),
    };
    let (before, attributes) = stamp(items(&source).await);
    assert_eq!(*attributes[0].name, *b"object:etag");
    assert_eq!(stamp(items(&source).await).0, before);
    store.put(&Path::from("a"), "CONTENT".into()).await.unwrap();
    assert_ne!(stamp(items(&source).await).0, before);
}

#[tokio::test]
async fn a_prefix_without_objects_is_an_error() {
    let source = BucketSource::new(Arc::new(InMemory::new()), "typo").unwrap();
    let mut run = source.begin(&JobContext::new()).await.unwrap();
    assert_eq!(run.next(10).await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// Reads as a worker does; what the content had to say at the end.
fn read(content: Content) -> std::io::Result<(Vec<u8>, Option<String>)> {
    let ContentReader::Blocking(open) = content.reader else { unreachable!() };
    let mut content: Box<dyn BlockingContent> = open()?;
    let (mut all, mut buffer) = (Vec::new(), vec![0; 100_000]);
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok((all, content.finish())),
            count => all.extend_from_slice(&buffer[..count]),
        }
    }
}

fn entries(items: Vec<Item>) -> Vec<Entry> {
    let entry = |item| match item {
        Item::Entry(entry) => Some(entry),
        Item::Skipped(_) => None,
    };
    items.into_iter().filter_map(entry).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_read_first_nobody_waits_for_ever() {
    let store = Arc::new(InMemory::new());
    let sizes = [0, 10, 3_000_000, 9_000_000, 100, 25_000_000, 4_194_304, 4_194_305];
    for number in 0..48_usize {
        let content = vec![number as u8; sizes[number % sizes.len()]];
        store.put(&Path::from(format!("{number:02}")), content.into()).await.unwrap();
    }
    let source = BucketSource::new(store, "").unwrap();
    for readers in [1, 2, 5] {
        let mut run = source.begin(&JobContext::new()).await.unwrap();
        let (send, batches) = async_channel::unbounded();
        // Everything is asked for before anything is read, and workers take it by batches, as in a backup.
        for entry in entries(run.next(1000).await.unwrap()) {
            send.send((entry.clone(), run.open(&entry).await.unwrap())).await.unwrap();
        }
        drop(send);
        let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..readers {
            let (batches, ended) = (batches.clone(), ended.clone());
            // Not a task: a runtime waits for those that block, and this test should fail rather than hang.
            std::thread::spawn(move || {
                while let Ok(first) = batches.recv_blocking() {
                    for (entry, content) in [Some(first), batches.try_recv().ok()].into_iter().flatten() {
                        let (bytes, notice) = read(content).unwrap();
                        let number: u8 = entry.name.to_string().parse().unwrap();
                        assert_eq!(bytes.len() as u64, entry.size.unwrap(), "{number}");
                        assert!(bytes.iter().all(|byte| *byte == number) && notice.is_none());
                    }
                }
                ended.send(()).unwrap();
            });
        }
        drop(ended);
        for _ in 0..readers {
            let end = tokio::time::timeout(Duration::from_secs(30), ends.recv()).await;
            assert_eq!(end.expect("it hangs"), Some(()), "a reader failed");
        }
        run.finish().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_after_it_was_listed_is_read_as_it_is_and_said() {
    const LONG: usize = 10_000_000;
    for (listed, now) in
        [(10, 20), (10, 10), (10, 0), (0, 10), (LONG, 0), (LONG, 5), (LONG, LONG), (10, LONG)]
    {
        let store = Arc::new(InMemory::new());
        store.put(&Path::from("a"), vec![1; listed].into()).await.unwrap();
        store.put(&Path::from("gone"), "gone".into()).await.unwrap();
        let source = BucketSource::new(store.clone(), "").unwrap();
        let mut run = source.begin(&JobContext::new()).await.unwrap();
        let listed = entries(run.next(10).await.unwrap());
        store.put(&Path::from("a"), vec![2; now].into()).await.unwrap();
        store.delete(&Path::from("gone")).await.unwrap();
        let content = run.open(&listed[0]).await.unwrap();
        let read_it = tokio::task::spawn_blocking(move || read(content));
        let (bytes, notice) = read_it.await.unwrap().unwrap();
        assert!(bytes == vec![2; now], "{} bytes of {now}", bytes.len());
        assert!(notice.unwrap().contains("changed after it was listed"));
        let content = run.open(&listed[1]).await.unwrap();
        let gone = tokio::task::spawn_blocking(move || read(content)).await.unwrap().unwrap_err();
        assert!(
            gone.kind() == Io::NotFound && gone.to_string().contains("vanished after it was listed"),
            "{gone}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_run_ends_what_it_began() {
    let store = Arc::new(InMemory::new());
    store.put(&Path::from("a"), vec![1; 30_000_000].into()).await.unwrap();
    let used = Arc::downgrade(&store);
    let source = BucketSource::new(store, "").unwrap();
    let mut run = source.begin(&JobContext::new()).await.unwrap();
    let entry = entries(run.next(10).await.unwrap()).remove(0);
    let content = run.open(&entry).await.unwrap();
    // Nobody reads, and nobody needs to.
    let abandoned = run.open(&entry).await.unwrap();
    drop(abandoned);
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop((run, source));
    let error = tokio::task::spawn_blocking(move || read(content)).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("stopped"), "{error}");
    let released = async {
        while used.strong_count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), released).await.expect("something still holds the store");
}

/// A store whose listing breaks off once after the first objects, in an order of its own.
#[derive(Debug)]
struct Odd {
    inner: InMemory,
    order: &'static [&'static str],
    lists: std::sync::atomic::AtomicUsize,
    breaks_after: usize,
}

impl std::fmt::Display for Odd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("odd")
    }
}

type Listed = futures_util::stream::BoxStream<'static, object_store::Result<object_store::ObjectMeta>>;

impl Odd {
    async fn new(order: &'static [&'static str], breaks_after: usize) -> Arc<Self> {
        let inner = InMemory::new();
        for key in order {
            inner.put(&listed_as(key), "".into()).await.unwrap();
        }
        Arc::new(Self { inner, order, lists: 0.into(), breaks_after })
    }

    fn listed(&self, after: Option<&Path>) -> Listed {
        use futures_util::{FutureExt, StreamExt};
        let first = self.lists.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
        let begin = after.and_then(|after| self.order.iter().position(|key| listed_as(key) == *after));
        let keys = self.order.iter().skip(begin.map_or(0, |at| at + 1));
        let mut found: Vec<_> =
            keys.map(|key| self.inner.head(&listed_as(key)).now_or_never().unwrap()).collect();
        if first && self.breaks_after < found.len() {
            found.truncate(self.breaks_after);
            found.push(Err(object_store::Error::Generic { store: "odd", source: "it broke off".into() }));
        }
        futures_util::stream::iter(found).boxed()
    }
}

fn listed_as(key: &str) -> Path {
    Path::parse(hidden(key).unwrap_or_else(|| key.to_owned())).unwrap()
}

#[async_trait::async_trait]
impl ObjectStore for Odd {
    async fn put_opts(
        &self,
        location: &Path,
        payload: object_store::PutPayload,
        options: PutOptions,
    ) -> object_store::Result<object_store::PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: object_store::PutMultipartOptions,
    ) -> object_store::Result<Box<dyn object_store::MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: object_store::GetOptions,
    ) -> object_store::Result<object_store::GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: futures_util::stream::BoxStream<'static, object_store::Result<Path>>,
    ) -> futures_util::stream::BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, _: Option<&Path>) -> Listed {
        self.listed(None)
    }

    fn list_with_offset(&self, _: Option<&Path>, offset: &Path) -> Listed {
        self.listed(Some(offset))
    }

    async fn list_with_delimiter(
        &self,
        prefix: Option<&Path>,
    ) -> object_store::Result<object_store::ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: object_store::CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn a_listing_goes_on_wherever_it_broke_off() {
    // By components: a store that says that it is in the order of bytes, and is not.
    const KEYS: &[&str] = &["/a", "a", "a//", "a//b", "a/x", "a-b", "b", "c//d", "e//f", "g"];
    let mut expected: Vec<_> = KEYS.iter().map(|key| key.to_string()).collect();
    expected.sort();
    for breaks_after in 0..=KEYS.len() {
        let source =
            BucketSource::new(Odd::new(KEYS, breaks_after).await, "").unwrap().with_ordered_listing(true);
        let mut run = source.begin(&JobContext::new()).await.unwrap();
        let mut names = Vec::new();
        let ended = loop {
            match run.next(3).await {
                Ok(items) if items.is_empty() => break Ok(()),
                Ok(items) => names.extend(items.into_iter().map(|item| match item {
                    Item::Entry(entry) => entry.name.to_string(),
                    Item::Skipped(skipped) => skipped.name.to_string(),
                })),
                Err(error) => break Err(error),
            }
        };
        names.sort();
        match ended {
            Ok(()) => assert_eq!(names, expected, "after {breaks_after}"),
            // Only where the order was seen to be another, one cannot go on.
            Err(error) => assert!(breaks_after > 5 && error.is_retryable(), "{breaks_after}: {error}"),
        }
    }
}
