//! Containers for [`super::server`] and their private networks: their image, and their removal.
//!
//! Containers outlive the runtime of any one test, so all requests to the engine run on a runtime of this module.
//!
//! Dropping the owner removes a container. Statics are never dropped, and neither is anything of a killed process. A
//! child process waits for the end of this process and removes those containers.

use std::{
    fmt,
    future::Future,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::{Arc, LazyLock},
    thread,
    time::Duration,
};

use futures_util::StreamExt;
use testcontainers::{
    ContainerAsync, ContainerRequest, GenericImage, ImageExt,
    bollard::{
        Docker,
        exec::{CreateExecOptions, StartExecResults},
        models::NetworkCreateRequest,
        query_parameters::CreateImageOptionsBuilder,
    },
    core::client::docker_client_instance,
    runners::AsyncRunner,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::OnceCell,
    time::timeout,
};

/// The limit for each request to the engine except a pull.
const LIMIT: Duration = Duration::from_secs(90);

/// A pull ends when the registry sends nothing for this long.
const PULL_PATIENCE: Duration = Duration::from_secs(15);

const OFFICIAL: &str = "postgres:17";
const BUILT_HERE: &str = "failfast-postgres:17";
const WITH_PATRONI: &str = "failfast-patroni:17";

/// Waits for the end of its input, which is the end of this process, and removes the containers and networks with the
/// given labels. It looks again after a while, because a container may just have been in creation.
const REAPER: &str = r#"trap '' INT TERM HUP
cat
for pause in 1 3 0; do
    docker ps --all --quiet --filter "label=$1" --filter "label=$2" | xargs -r docker rm --force --volumes
    docker network ls --quiet --filter "label=$1" --filter "label=$2" | xargs -r docker network rm
    sleep $pause
done"#;

pub(super) type Running = ContainerAsync<GenericImage>;

/// A container. Dropping it removes the container.
pub(super) struct Container(Option<Arc<Running>>);

impl Container {
    /// Creates and starts a container with this process's labels. Does not wait until its program is ready.
    pub(super) async fn start(request: ContainerRequest<GenericImage>) -> Result<Container, String> {
        on_own_runtime(async move {
            let started = request.with_labels(LABELS.all()).start().await.map_err(|error| chain(&error))?;
            Ok(Container(Some(Arc::new(started))))
        })
        .await
    }

    pub(super) fn id(&self) -> &str {
        self.running().id()
    }

    /// Runs an action on the container, and panics if it fails.
    pub(super) async fn run<T, E, F>(&self, what: &str, action: impl FnOnce(Arc<Running>) -> F) -> T
    where
        T: Send + 'static,
        E: fmt::Display + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        on_own_runtime(action(self.running().clone())).await.unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// Runs a shell command in the container as root. Returns its exit code and its output, with the errors.
    pub(super) async fn exec(&self, command: &str) -> (Option<i64>, String) {
        let options = CreateExecOptions {
            cmd: Some(["sh", "-c", command].map(str::to_owned).into()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..CreateExecOptions::default()
        };
        self.run(command, async move |container| {
            let docker = engine().await;
            let exec = docker.create_exec(container.id(), options).await?.id;
            let mut printed = String::new();
            if let StartExecResults::Attached { mut output, .. } = docker.start_exec(&exec, None).await? {
                while let Some(piece) = output.next().await {
                    printed += &String::from_utf8_lossy(piece?.as_ref());
                }
            }
            let code = docker.inspect_exec(&exec).await?.exit_code;
            Ok::<_, testcontainers::bollard::errors::Error>((code, printed))
        })
        .await
    }

    /// Removes the container, whose name and port are then free. It is of no use afterwards.
    pub(super) fn remove(&mut self) {
        // The removal blocks on the runtime, which is not possible inside another runtime.
        let running = self.0.take();
        let removing = thread::spawn(move || RUNTIME.block_on(async move { drop(running) }));
        let _ = removing.join();
    }

    fn running(&self) -> &Arc<Running> {
        self.0.as_ref().expect("taken by its removal only")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.remove();
    }
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Container").field(&self.id()).finish()
    }
}

/// A network for the containers of one cluster. They find each other by their names. Drop them before it.
#[derive(Debug)]
pub(super) struct Network {
    name: String,
}

impl Network {
    /// Creates a network with a unique name.
    pub(super) async fn create() -> Network {
        let name = format!("failfast-{:08x}", fastrand::u32(..));
        let labels = LABELS.all().into_iter().collect();
        let request = NetworkCreateRequest { name: name.clone(), labels: Some(labels), ..Default::default() };
        let created = on_own_runtime(async { engine().await.create_network(request).await }).await;
        created.unwrap_or_else(|error| panic!("no network: {}", chain(&error)));
        Network { name }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        let removing = thread::spawn(move || {
            RUNTIME.block_on(async move { timeout(LIMIT, engine().await.remove_network(&name)).await })
        });
        let _ = removing.join();
    }
}

/// Returns the image for servers: the configured one, the official one, or the one built here.
pub(super) async fn image() -> GenericImage {
    static NAME: OnceCell<Option<String>> = OnceCell::const_new();
    let name = NAME.get_or_init(|| on_own_runtime(find_image())).await;
    let Some(name) = name else { panic!("there is no image to start a server from: run ./dev setup") };
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => GenericImage::new(name, tag),
        _ => GenericImage::new(name.as_str(), "latest"),
    }
}

/// The labels of this process's containers, as arguments of `docker run`.
#[cfg(feature = "fleet")]
pub(super) fn label_arguments() -> impl Iterator<Item = String> {
    LABELS.all().into_iter().map(|(name, value)| format!("--label={name}={value}"))
}

/// Returns the image built here, which has PgBouncer, if it exists.
pub(super) async fn image_with_pgbouncer() -> Option<GenericImage> {
    present(BUILT_HERE).await
}

/// Returns the image with Patroni, etcd and HAProxy, if it exists.
pub(super) async fn image_with_patroni() -> Option<GenericImage> {
    present(WITH_PATRONI).await
}

async fn present(image: &'static str) -> Option<GenericImage> {
    let found = on_own_runtime(async { engine().await.inspect_image(image).await }).await;
    found.ok().and(image.split_once(':')).map(|(name, tag)| GenericImage::new(name, tag))
}

async fn find_image() -> Option<String> {
    if let Ok(name) = std::env::var("FAILFAST_TEST_IMAGE") {
        return Some(name);
    }
    let docker = engine().await;
    if docker.inspect_image(OFFICIAL).await.is_ok() || pull(&docker, OFFICIAL).await {
        return Some(OFFICIAL.to_owned());
    }
    let built = docker.inspect_image(BUILT_HERE).await;
    built.is_ok().then(|| BUILT_HERE.to_owned())
}

async fn pull(docker: &Docker, name: &str) -> bool {
    let options = CreateImageOptionsBuilder::new().from_image(name).build();
    let mut progress = docker.create_image(Some(options), None, None);
    loop {
        match timeout(PULL_PATIENCE, progress.next()).await {
            Ok(Some(Ok(_))) => {}
            Ok(None) => return true,
            Ok(Some(Err(_))) | Err(_) => return false,
        }
    }
}

/// The engine itself, for requests beyond [`Container::run`]. Use it on this module's runtime.
pub(super) async fn engine() -> Docker {
    docker_client_instance().await.unwrap_or_else(|error| panic!("no container engine: {}", chain(&error)))
}

/// Runs the future on the runtime that outlives every test.
pub(super) async fn on_own_runtime<F>(future: F) -> F::Output
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let bounded = RUNTIME.spawn(timeout(LIMIT, future));
    match bounded.await {
        Ok(Ok(output)) => output,
        Ok(Err(_)) => panic!("the container engine took longer than {LIMIT:?}"),
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    }
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).thread_name("containers").enable_all().build().expect("a runtime")
});

/// The labels of this process's containers and networks, and the child that removes them.
static LABELS: LazyLock<Labels> = LazyLock::new(|| {
    let pid = std::process::id();
    let run = std::env::var("FAILFAST_RUN").unwrap_or_else(|_| format!("{pid}-{:08x}", fastrand::u32(..)));
    let mut labels = Labels { pid, run, _reaper: None };
    labels._reaper = Some(labels.reaper());
    labels
});

struct Labels {
    pid: u32,
    run: String,
    /// This process holds the other end of the child's input open.
    _reaper: Option<Child>,
}

impl Labels {
    fn all(&self) -> [(String, String); 3] {
        [("failfast".to_owned(), "test".to_owned()), self.pid(), self.run()]
    }

    fn pid(&self) -> (String, String) {
        ("failfast.pid".to_owned(), self.pid.to_string())
    }

    fn run(&self) -> (String, String) {
        ("failfast.run".to_owned(), self.run.clone())
    }

    /// Starts the child in a process group of its own, so that Ctrl-C does not reach it.
    fn reaper(&self) -> Child {
        let filters = [self.pid(), self.run()].map(|(name, value)| format!("{name}={value}"));
        let mut command = Command::new("sh");
        command.args(["-c", REAPER, "reaper"]).args(filters).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("a shell")
    }
}

/// Returns an error with its causes, because the engine's own message is one of them.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
