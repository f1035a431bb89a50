//! Computation: the words of a book are counted by nodes that do not trust one another, some of them faulty.

use std::{
    io::Write,
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anwansi_client::{
    Client, Decision, Error, Progress,
    programs::{Program as _, WordCount},
    proofs::{Apply, Draft, Input, Json, Object, Spec, TaskPolicy, TransitionId, record::Outcome},
};
use serde_json::Value;

use super::{DemoError, bar, cost, grouped, nodes::Kind, nodes::Nodes, votes};

/// What the counts are written below, a key for each word.
pub(super) const INTO: &str = "moby-dick";
/// How long nodes have to pledge and to reveal.
const DEADLINE_MS: u32 = 1500;
/// How often it is tried, each time with twice as long deadlines, on a machine that is too slow for them.
const ATTEMPTS: u32 = 3;
/// How often a line tells how far it is, where there is no terminal.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What is to be counted, and how much time nodes have.
pub(super) struct Plan {
    pub(super) chapters: Vec<String>,
    pub(super) deadline_ms: u32,
}

impl Plan {
    pub(super) fn new(chapters: Vec<String>) -> Self {
        Plan { chapters, deadline_ms: DEADLINE_MS }
    }

    fn policy(&self) -> TaskPolicy {
        let TaskPolicy { error_ppm, lead, nodes_max, missed_max, .. } = TaskPolicy::default();
        let (pledge_ms, reveal_ms) = (self.deadline_ms, self.deadline_ms);
        TaskPolicy { error_ppm, lead, nodes_max, missed_max, pledge_ms, reveal_ms }
    }
}

/// A transition that was applied, with its evidence, which the client has verified.
pub(super) struct Counted {
    pub(super) spec: Spec,
    pub(super) decision: Decision,
    /// From its submission to its decision.
    pub(super) took: Duration,
    pub(super) evidence: anwansi_client::TransitionEvidence,
    /// The members of the evidence, as anyone can read them.
    pub(super) members: Value,
}

/// Has the chapters counted, and shows what it cost and what it proves.
pub(super) fn show(
    client: &Client,
    nodes: &Nodes,
    plan: &Plan,
    stop: &AtomicBool,
    out: &mut impl Write,
) -> Result<TransitionId, DemoError> {
    introduce(nodes, plan, out)?;
    let (spec, decision, took) = decide(client, plan, stop, out)?;
    let id = spec.id();
    let evidence = client.transition_evidence(&id, true)?.value;
    let words = evidence.value.as_ref().and_then(Json::as_object).map_or(0, Object::len);
    writeln!(
        out,
        "applied  in version {}, all chapters at once, {:.1} s after it was opened: {} words, each under {INTO}/<word>\n",
        decision.decided,
        took.as_secs_f64(),
        grouped(words),
    )?;
    let members = serde_json::from_str(&evidence.evidence.to_json())
        .map_err(|error| DemoError::Unexpected(error.to_string()))?;
    let counted = Counted { spec, decision, took, evidence, members };
    cost::show(client, nodes, &counted, out)?;
    votes::show(client, &plan.chapters, &counted, out)?;
    Ok(id)
}

fn introduce(nodes: &Nodes, plan: &Plan, out: &mut impl Write) -> Result<(), DemoError> {
    let bytes = plan.chapters.iter().map(String::len).sum();
    let chapters = plan.chapters.len();
    writeln!(
        out,
        "book     {chapters} chapters of Moby-Dick, {} bytes: to count the words of each is a task",
        grouped(bytes),
    )?;
    writeln!(out, "nodes    {} with keys of their own, registered in the log:", nodes.count())?;
    for kind in Kind::ALL {
        writeln!(out, "         {:3} {}", kind.count(), kind.description())?;
    }
    let TaskPolicy { lead, nodes_max, missed_max, pledge_ms, reveal_ms, .. } = plan.policy();
    let default = TaskPolicy::default();
    let [pledge_ms, reveal_ms, usual_pledge_ms, usual_reveal_ms] =
        [pledge_ms, reveal_ms, default.pledge_ms, default.reveal_ms].map(|ms| grouped(ms as usize));
    writeln!(
        out,
        "policy   the default one: a result counts once it is {lead} votes ahead; a task draws at most {nodes_max} \
         nodes,\n         and does without the votes of at most {missed_max}. But nodes have {pledge_ms} ms to \
         pledge and {reveal_ms} ms\n         to reveal, instead of {usual_pledge_ms} and {usual_reveal_ms}, \
         so that you need not wait",
    )?;
    Ok(())
}

/// Submits the transition and waits until it is applied; from a machine that is too slow for its deadlines
/// another one with longer ones.
fn decide(
    client: &Client,
    plan: &Plan,
    stop: &AtomicBool,
    out: &mut impl Write,
) -> Result<(Spec, Decision, Duration), DemoError> {
    let mut policy = plan.policy();
    for _ in 0..ATTEMPTS {
        let spec = draw_up(client, &plan.chapters, policy)?;
        let start = Instant::now();
        let id = client.submit(&spec)?;
        writeln!(out, "opened   transition {id}")?;
        let decision = follow(client, &spec, stop, out)?;
        if decision.outcome == Outcome::Applied {
            return Ok((spec, decision, start.elapsed()));
        }
        let reason = client.progress(&id)?.reason.unwrap_or_default();
        writeln!(out, "failed   nothing was applied: {reason}")?;
        (policy.pledge_ms, policy.reveal_ms) = (2 * policy.pledge_ms, 2 * policy.reveal_ms);
        writeln!(out, "again    with {} ms, if this machine was too slow", policy.pledge_ms)?;
    }
    Err(DemoError::Unexpected("the words of the book were not counted".into()))
}

/// The specification, with the chapters as blobs: nodes fetch those that they were drawn for.
fn draw_up(client: &Client, chapters: &[String], policy: TaskPolicy) -> Result<Spec, DemoError> {
    let blob = |chapter: &String| Ok(Input::Blob(client.put_blob(chapter.as_bytes())?));
    let draft = Draft {
        program: WordCount.name().into(),
        code: None,
        // Another each time: what was decided is not computed again.
        nonce: hex::encode(fastrand::u128(..).to_le_bytes()),
        inputs: chapters.iter().map(blob).collect::<Result<_, Error>>()?,
        fold: "sum_by_key".into(),
        into: INTO.into(),
        apply: Apply::Replace,
        spread: true,
        policy,
    };
    Ok(Spec::new(&draft).map_err(Error::from)?)
}

/// Shows how far the tasks are until they are decided.
fn follow(
    client: &Client,
    spec: &Spec,
    stop: &AtomicBool,
    out: &mut impl Write,
) -> Result<Decision, DemoError> {
    let tasks = spec.inputs.len();
    let style = "tasks    [{bar:40}] {pos} of {len} chapters decided, {msg} wait for nodes";
    let bar = bar(tasks, style);
    let (start, mut tell) = (Instant::now(), TELL_EVERY);
    let mut told = Ok(());
    let watch = |asked: Result<&Progress, &Error>| {
        if stop.load(Ordering::SeqCst) {
            return ControlFlow::Break(());
        }
        let Ok(progress) = asked else { return ControlFlow::Continue(()) };
        let count =
            |is: fn(&str) -> bool| progress.tasks.iter().filter(|task| is(&task.phase)).count();
        let ended = count(|phase| matches!(phase, "ended" | "final" | "no_agreement"));
        let waiting = count(|phase| matches!(phase, "pledging" | "revealing"));
        bar.set_position(ended as u64);
        bar.set_message(waiting.to_string());
        if bar.is_hidden() && start.elapsed() >= tell {
            tell += TELL_EVERY;
            let seconds = start.elapsed().as_secs();
            told = writeln!(
                out,
                "tasks    {ended:3} of {tasks} chapters decided, {waiting:3} wait for nodes, {seconds:2} s"
            );
        }
        if told.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let decision = client.wait(&spec.id(), watch);
    bar.finish_and_clear();
    let decision = decision?;
    told?;
    decision.ok_or(DemoError::Interrupted)
}

#[cfg(test)]
mod tests {
    use anwansi_client::{At, InMemory, trust};
    use tokio::task::spawn_blocking;

    use super::*;
    use crate::{
        Config, Server,
        demo::{Stage, book},
    };

    const TOKEN: &str = "of-a-test-and-of-nothing-else";

    async fn server() -> Server {
        let config = Config {
            engine: "memory:".into(),
            listen: ([127, 0, 0, 1], 0).into(),
            token: Some(TOKEN.into()),
            ..Config::default()
        };
        Server::start(config).await.unwrap()
    }

    fn client(stage: Stage<'_>) -> Client {
        let policy = trust::of_vkey(stage.vkey).unwrap();
        let client = Client::connect(stage.url, policy, InMemory::default()).unwrap();
        client.with_token(stage.token).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_few_chapters_are_counted_right_and_a_changed_vote_is_refused() {
        let server = server().await;
        let (url, vkey) = (format!("http://{}", server.addr()), server.vkey().to_string());
        let shown = spawn_blocking(move || {
            let stage = Stage { url: &url, vkey: &vkey, token: TOKEN };
            let client = client(stage);
            let nodes = Nodes::start(stage, &client).unwrap();
            let chapters = book::chapters()[..12].to_vec();
            let plan = Plan { chapters, deadline_ms: 800 };
            let mut out = Vec::new();
            let id = show(&client, &nodes, &plan, &AtomicBool::new(false), &mut out).unwrap();
            // The nodes serve on, under the same keys if they are started again.
            drop(nodes);
            drop(Nodes::start(stage, &client).unwrap());
            assert_eq!(client.nodes(At::Newest).unwrap().value.len(), 30);
            let counts = book::count(&plan.chapters);
            for word in ["whale", "ishmael", "the"] {
                let value = client.get(format!("{INTO}/{word}").as_bytes(), At::Newest).unwrap();
                assert_eq!(value.value, Some(counts[word].to_string().into_bytes()), "{word}");
            }
            let decided = client.transition(&id, At::Newest).unwrap().value.unwrap().decided;
            assert_eq!(decided.map(|(_, outcome)| outcome), Some(Outcome::Applied));
            String::from_utf8(out).unwrap()
        });
        let shown = shown.await.unwrap();
        println!("{shown}");
        assert!(shown.contains("REFUSED  agreement: task "), "{shown}");
        server.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_ends_when_it_is_stopped() {
        let server = server().await;
        let (url, vkey) = (format!("http://{}", server.addr()), server.vkey().to_string());
        let stopped = spawn_blocking(move || {
            let stage = Stage { url: &url, vkey: &vkey, token: TOKEN };
            let client = client(stage);
            let nodes = Nodes::start(stage, &client).unwrap();
            let plan = Plan::new(book::chapters()[..2].to_vec());
            show(&client, &nodes, &plan, &AtomicBool::new(true), &mut Vec::new()).map(drop)
        });
        assert!(matches!(stopped.await.unwrap(), Err(DemoError::Interrupted)));
        server.shutdown().await.unwrap();
    }
}
