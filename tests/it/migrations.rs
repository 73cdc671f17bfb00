//! What the fake nodes know of atomic slot migration: both grammars, and migrations that end in every way.

use std::collections::VecDeque;

use crate::fake::{Model, bulk};

/// Whose grammar the nodes understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grammar {
    /// `CLUSTER MIGRATESLOTS`, to the source.
    Valkey,
    /// `CLUSTER MIGRATION IMPORT`, to the target.
    Redis,
}

/// How a migration ends, at the second look that somebody takes at it.
#[derive(Clone, Debug, Default)]
pub(crate) enum Fate {
    #[default]
    Succeed,
    /// With these words. A Redis begins it anew until it is cancelled.
    Fail(&'static str),
    /// Somebody else cancels it.
    Cancelled,
    /// Not before it is cancelled, or given another fate.
    Linger,
    /// The same, and when it is cancelled it goes on under another name, until somebody has looked so many times more.
    Outlast(u32),
    /// It has worked, and is not in the log any more.
    SucceedUnseen,
    /// The nodes have been started anew: nothing has moved, and nobody knows of it.
    Forgotten,
    /// The target owns the slots, and the source says this.
    LoseWrites(&'static str),
}

/// One migration.
struct Task {
    name: String,
    slots: Vec<usize>,
    ranges: String,
    source: usize,
    target: usize,
    fate: Fate,
    looks: u32,
    /// State and words at the source and at the target.
    told: [(&'static str, &'static str); 2],
    retries: u32,
    /// Looks until it ends, once it was cancelled.
    left: Option<u32>,
    is_over: bool,
}

/// What the nodes know, and what will become of what they are told to do.
#[derive(Default)]
pub(crate) struct Migrations {
    /// The nodes that know it, and how.
    pub(crate) known: Vec<(usize, Grammar)>,
    /// Of the next ones.
    pub(crate) fates: VecDeque<Fate>,
    /// Of those behind them.
    pub(crate) usual: Fate,
    tasks: Vec<Task>,
    /// The slots of each that was begun.
    pub(crate) begun: Vec<String>,
    pub(crate) cancelled: usize,
}

impl Migrations {
    /// What is under way has this fate from now on.
    pub(crate) fn decide(&mut self, fate: &Fate) {
        self.tasks
            .iter_mut()
            .filter(|task| !task.is_over)
            .for_each(|task| task.fate = fate.clone());
    }
}

/// The answer of a node to a `CLUSTER` command, if it is about migrations.
pub(crate) fn answer(model: &mut Model, node: usize, args: &[Vec<u8>]) -> Option<Vec<u8>> {
    let words: Vec<&str> = args.iter().map(|arg| std::str::from_utf8(arg).unwrap_or("")).collect();
    let known = model.migrations.known.iter().find(|(number, _)| *number == node);
    let grammar = known.map(|(_, grammar)| *grammar);
    let is_about = ["MIGRATESLOTS", "GETSLOTMIGRATIONS", "CANCELSLOTMIGRATIONS", "MIGRATION"];
    if !is_about.contains(&words[1]) {
        return None;
    }
    Some(match (grammar, &words[1..]) {
        (Some(Grammar::Valkey), ["MIGRATESLOTS", "SLOTSRANGE", bounds @ .., "NODE", id]) => {
            let target = model.number(id);
            match begin(model, node, target, bounds) {
                Ok(_) => b"+OK\r\n".to_vec(),
                Err(error) => error,
            }
        }
        (Some(Grammar::Redis), ["MIGRATION", "IMPORT", bounds @ ..]) => {
            let slot: usize = bounds[0].parse().expect("a slot");
            let source = model.truth.owners[slot].expect("an owner");
            begin(model, source, node, bounds).map_or_else(|error| error, |name| bulk(&name))
        }
        (Some(Grammar::Valkey), ["GETSLOTMIGRATIONS"])
        | (Some(Grammar::Redis), ["MIGRATION", "STATUS", "ALL"]) => {
            status(model, node, grammar.expect("it is known"))
        }
        (Some(Grammar::Valkey), ["CANCELSLOTMIGRATIONS"]) => {
            match cancel(model, |task| task.source == node, "cancelled") {
                0 => b"-ERR No migrations ongoing\r\n".to_vec(),
                _ => b"+OK\r\n".to_vec(),
            }
        }
        (Some(Grammar::Redis), ["MIGRATION", "CANCEL", "ID", name]) => {
            format!(":{}\r\n", cancel(model, |task| task.name == *name, "canceled")).into_bytes()
        }
        _ => format!("-ERR unknown subcommand '{}'. Try CLUSTER HELP.\r\n", words[1]).into_bytes(),
    })
}

fn begin(
    model: &mut Model,
    source: usize,
    target: usize,
    bounds: &[&str],
) -> Result<String, Vec<u8>> {
    let bounds: Vec<usize> = bounds.iter().map(|bound| bound.parse().expect("a slot")).collect();
    let slots: Vec<usize> = bounds.chunks(2).flat_map(|pair| pair[0]..=pair[1]).collect();
    if source == target {
        return Err(b"-ERR this node is already the owner of the slot range\r\n".to_vec());
    }
    if slots.iter().any(|slot| model.truth.owners[*slot] != Some(source)) {
        return Err(b"-ERR Slots are not served by this node.\r\n".to_vec());
    }
    let migrations = &mut model.migrations;
    let ranges: Vec<String> =
        bounds.chunks(2).map(|pair| format!("{}-{}", pair[0], pair[1])).collect();
    let name = format!("{:040x}", migrations.begun.len() + 0xa000);
    migrations.begun.push(ranges.join(" "));
    migrations.tasks.push(Task {
        name: name.clone(),
        slots,
        ranges: ranges.join(" "),
        source,
        target,
        fate: migrations.fates.pop_front().unwrap_or_else(|| migrations.usual.clone()),
        looks: 0,
        told: [("snapshotting", ""), ("receiving-snapshot", "")],
        retries: 0,
        left: None,
        is_over: false,
    });
    Ok(name)
}

fn cancel(model: &mut Model, concerns: impl Fn(&Task) -> bool, word: &'static str) -> usize {
    let running = model.migrations.tasks.iter_mut().filter(|task| !task.is_over && concerns(task));
    let cancelled = running.map(|task| match task.fate {
        Fate::Outlast(looks) if task.left.is_none() => {
            task.left = Some(looks);
            task.name = task.name.replace("0000a", "0000b");
        }
        Fate::Outlast(_) => {}
        _ => (task.is_over, task.told) = (true, [(word, ""); 2]),
    });
    let count = cancelled.count();
    model.migrations.cancelled += count;
    count
}

fn status(model: &mut Model, node: usize, grammar: Grammar) -> Vec<u8> {
    let mut tasks = std::mem::take(&mut model.migrations.tasks);
    let concerned = |task: &Task| task.source == node || task.target == node;
    for task in tasks.iter_mut().filter(|task| !task.is_over && concerned(task)) {
        task.looks += 1;
        if task.looks > 1 {
            end(model, task, grammar);
        }
    }
    tasks.retain(|task| {
        !task.is_over || !matches!(task.fate, Fate::SucceedUnseen | Fate::Forgotten)
    });
    let lines: Vec<Vec<u8>> = tasks
        .iter()
        .filter(|task| concerned(task))
        .map(|task| line(model, task, node, grammar))
        .collect();
    model.migrations.tasks = tasks;
    [format!("*{}\r\n", lines.len()).into_bytes(), lines.concat()].concat()
}

fn end(model: &mut Model, task: &mut Task, grammar: Grammar) {
    let done = if grammar == Grammar::Valkey { "success" } else { "completed" };
    task.is_over = !matches!(task.fate, Fate::Linger | Fate::Outlast(_));
    match task.fate {
        Fate::Outlast(_) => {
            task.left = task.left.map(|left| left.saturating_sub(1));
            if task.left == Some(0) {
                (task.is_over, task.told) = (true, [("cancelled", ""); 2]);
            }
        }
        Fate::Succeed | Fate::SucceedUnseen => {
            model.take_slots(&task.slots, task.source, task.target);
            task.told = [(done, ""); 2];
        }
        Fate::Fail(said) => {
            task.told = [("failed", said); 2];
            task.is_over = grammar == Grammar::Valkey;
            task.retries += 1;
        }
        Fate::Cancelled => task.told = [("cancelled", ""); 2],
        Fate::LoseWrites(said) => {
            model.take_slots(&task.slots, task.source, task.target);
            task.told = [("failed", said), (done, "")];
        }
        Fate::Linger | Fate::Forgotten => {}
    }
}

fn line(model: &Model, task: &Task, node: usize, grammar: Grammar) -> Vec<u8> {
    let (state, said) = task.told[usize::from(task.source != node)];
    let id = |number: usize| model.truth.members[number].id.clone();
    let (source, target, retries) = (id(task.source), id(task.target), task.retries.to_string());
    let fields = match grammar {
        Grammar::Valkey => [
            ["name", &task.name],
            ["slot_ranges", &task.ranges],
            ["source_node", &source],
            ["target_node", &target],
            ["state", state],
            ["message", said],
            ["remaining_repl_size", "0"],
        ],
        Grammar::Redis => [
            ["id", &task.name],
            ["slots", &task.ranges],
            ["source", &source],
            ["dest", &target],
            ["state", state],
            ["last_error", said],
            ["retries", &retries],
        ],
    };
    let fields: Vec<Vec<u8>> = fields.iter().flatten().map(|word| bulk(word)).collect();
    [format!("*{}\r\n", fields.len()).into_bytes(), fields.concat()].concat()
}
