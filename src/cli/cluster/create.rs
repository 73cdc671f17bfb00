//! `slotway cluster create`.

use serde_json::json;

use super::Job;
use super::out::{Exit, Kind, Outcome, Style};
use super::show::{self, Shown};
use crate::cluster::{Address, NodeId, Slots};
use crate::manage::apply::{Crew, Event};
use crate::manage::plan::Step;
use crate::manage::plan::create::{self, Affinity, Layout, TooFew};
use crate::manage::recruit::{self, Recruit, Unfit};
use crate::manage::view::ClusterView;

impl Job<'_> {
    pub(super) async fn create(&self) -> Outcome {
        let addresses = self.addresses()?;
        let zones = self.zones(&addresses)?;
        if self.out.style == Style::Trib {
            self.out.info(">>> Creating cluster");
        }
        let recruits = self.recruit(&addresses).await?;
        let sites = recruit::sites(&recruits, &zones);
        let sites: Vec<&str> = sites.iter().map(String::as_str).collect();
        let replicas = self.flag(self.line.number("replicas"))?.unwrap_or(0);
        let layout = create::layout(&sites, replicas).map_err(|too_few| self.too_few(too_few))?;
        self.show_layout(&layout, &recruits);
        let ids: Vec<NodeId> = recruits.iter().map(|recruit| recruit.view.own.id.clone()).collect();
        let steps = layout.steps(&ids);
        if self.line.has("dry-run") {
            return Ok(self.answer_plan(&steps));
        }
        if !self.out.confirm(
            "Can I set the above configuration? (type 'yes' to accept): ",
            self.says_yes(),
        )? {
            return Ok(Exit::Failure);
        }
        let nodes: Vec<_> = recruits.into_iter().map(|recruit| recruit.view).collect();
        let mut crew = self.crew(&ClusterView { nodes, absent: Vec::new() });
        self.form(&mut crew, &steps, &ids).await?;
        let view = self.gather(&addresses[0]).await?;
        let is_whole = show::check(&self.out, &view, false);
        self.out
            .answer(&json!({ "ok": is_whole, "steps": steps, "cluster": show::as_json(&view) }));
        Ok(if is_whole { Exit::Success } else { Exit::Failure })
    }

    fn addresses(&self) -> Outcome<Vec<Address>> {
        let mut addresses = Vec::new();
        for at in 0..self.line.args.len() {
            let text = self.arg(at)?;
            let place = text.split_once('@').map_or(text, |(place, _)| place);
            let address = Address::parse(place, None).filter(|address| !address.host().is_empty());
            let address = address.ok_or_else(|| {
                self.out.complain(Exit::Usage, &format!("Invalid address format: {text}"))
            })?;
            if addresses.contains(&address) {
                return Err(self
                    .out
                    .complain(Exit::Usage, &format!("[ERR] {address} is given twice")));
            }
            addresses.push(address);
        }
        Ok(addresses)
    }

    /// Where nodes are, as far as that is said.
    fn zones(&self, addresses: &[Address]) -> Outcome<Vec<(Address, String)>> {
        let mut zones = Vec::new();
        for pair in self.flag(self.line.values("zones"))? {
            let zone = recruit::zone(pair).filter(|(address, _)| addresses.contains(address));
            zones.push(zone.ok_or_else(|| {
                let text = format!("[ERR] --cluster-zones: {pair} is not one of the nodes=zone");
                self.out.complain(Exit::Usage, &text)
            })?);
        }
        Ok(zones)
    }

    /// The nodes, if all are fit; each that is not is named with its reason.
    async fn recruit(&self, addresses: &[Address]) -> Outcome<Vec<Recruit>> {
        let found = recruit::ask_all(addresses, &self.access).await;
        if self.line.has("resume") && found.iter().all(Result::is_ok) {
            let found: Vec<Recruit> = found.into_iter().flatten().collect();
            return self.start_over(addresses, found).await;
        }
        if self.out.style == Style::Trib {
            addresses.iter().zip(&found).filter(|(_, found)| found.is_ok()).for_each(
                |(address, _)| {
                    self.out.plain(&format!("Connecting to node {address}: OK"));
                },
            );
        }
        let all_answer: Option<Vec<Recruit>> =
            found.iter().map(|found| found.as_ref().ok().cloned()).collect();
        let unfit = match recruit::all_unfit(addresses, found) {
            Ok(fit) => return Ok(fit),
            Err(unfit) => unfit,
        };
        for (address, fault) in &unfit {
            self.say_unfit(address, fault);
        }
        if all_answer.is_some_and(|recruits| recruit::are_leftovers(&recruits)) {
            self.out.warning(
                "These nodes have no keys and know only each other, as an unfinished create leaves them: \
                 pass --resume to have them start over.",
            );
        }
        let text = unfit.iter().map(|(address, fault)| format!("{address}: {fault}"));
        self.out.answer(&json!({ "ok": false, "error": text.collect::<Vec<_>>().join("; ") }));
        Err(Exit::Refused)
    }

    /// What an unfinished create has left begins anew; nothing else is touched.
    async fn start_over(
        &self,
        addresses: &[Address],
        found: Vec<Recruit>,
    ) -> Outcome<Vec<Recruit>> {
        if !recruit::are_leftovers(&found) {
            let text = "[ERR] These nodes have keys or functions, or know others: they are not what an unfinished create leaves";
            return Err(self.out.fail(Exit::Refused, text));
        }
        let used = found.iter().filter(|r| r.unfit().is_some() || r.view.own.epoch > 0);
        let used: Vec<NodeId> = used.map(|r| r.view.own.id.clone()).collect();
        if used.is_empty() || self.line.has("dry-run") {
            return Ok(found);
        }
        let question = format!("Can I reset {} nodes? (type 'yes' to accept): ", used.len());
        if !self.out.confirm(&question, self.says_yes())? {
            return Err(Exit::Failure);
        }
        let nodes = found.into_iter().map(|recruit| recruit.view).collect();
        let failed = self.crew(&ClusterView { nodes, absent: Vec::new() }).undo(&used).await;
        if let Some((node, error)) = failed.first() {
            return Err(self
                .out
                .fail(Exit::Failure, &format!("[ERR] {node} was not reset: {error}")));
        }
        let found = recruit::ask_all(addresses, &self.access).await;
        recruit::all_unfit(addresses, found).map_err(|unfit| {
            for (address, fault) in &unfit {
                self.say_unfit(address, fault);
            }
            Exit::Failure
        })
    }

    /// Says why a node cannot join.
    pub(super) fn say_unfit(&self, address: &Address, fault: &Unfit) {
        match fault {
            Unfit::Unknown(error) => {
                if !self.out.json {
                    self.unreachable(address, error);
                }
            }
            Unfit::NotEmpty { .. } => {
                self.out.error(&format!(
                    "[ERR] Node {address} is not empty. Either the node already knows other nodes (check with CLUSTER \
                     NODES) or contains some key in database 0."
                ));
                self.out.error(&format!("      {address}: {fault}"));
            }
            Unfit::Functions(_) => {
                self.out.error(&format!(
                    "[ERR] Node {address} is not empty: {fault}. Use FUNCTION FLUSH and try again."
                ));
            }
            Unfit::NoPort => self.out.error(&format!("[ERR] Node {address} cannot join: {fault}.")),
            Unfit::Twin(_) => {
                self.out.error(&format!("[ERR] Node {address} is given twice: {fault}"));
            }
        }
    }

    fn too_few(&self, TooFew { nodes, replicas }: TooFew) -> Exit {
        let word = self.out.style.primary();
        let least = create::FEWEST.saturating_mul(replicas.saturating_add(1));
        let text = format!(
            "*** ERROR: Invalid configuration for cluster creation.\n\
             *** Redis Cluster requires at least 3 {word} nodes.\n\
             *** This is not possible with {nodes} nodes and {replicas} replicas per node.\n\
             *** At least {least} nodes are required."
        );
        self.out.fail(Exit::Refused, &text)
    }

    fn show_layout(&self, layout: &Layout, recruits: &[Recruit]) {
        let address = |seat: usize| &recruits[seat].view.address;
        self.out
            .info(&format!(">>> Performing hash slots allocation on {} nodes...", recruits.len()));
        if self.out.style == Style::Trib {
            self.out.plain(&format!("Using {} masters:", layout.primaries.len()));
            layout
                .primaries
                .iter()
                .for_each(|(seat, _)| self.out.plain(&address(*seat).to_string()));
        } else {
            let word = if self.out.style == Style::Valkey { "Primary" } else { "Master" };
            for (at, range) in
                layout.primaries.iter().flat_map(|(_, slots)| slots.ranges()).enumerate()
            {
                self.out.plain(&format!(
                    "{word}[{at}] -> Slots {} - {}",
                    range.start(),
                    range.end()
                ));
            }
        }
        for (at, (replica, primary)) in layout.replicas.iter().enumerate() {
            if at == layout.regular {
                self.out.plain("Adding extra replicas...");
            }
            self.out.plain(&format!(
                "Adding replica {} to {}",
                address(*replica),
                address(*primary)
            ));
        }
        let site = if self.line.has("zones") { "zone" } else { "host" };
        self.show_affinity(layout.affinity, site);
        for seat in 0..recruits.len() {
            self.out.plain(&self.seat(layout, recruits, seat));
        }
    }

    fn show_affinity(&self, affinity: Option<Affinity>, site: &str) {
        let Some(affinity) = affinity else { return };
        let word = self.out.style.primary();
        let replicas = self.out.style.replicas();
        self.out.info(&format!(">>> Trying to optimize {replicas} allocation for anti-affinity"));
        match affinity {
            Affinity::Perfect => self.out.good("[OK] Perfect anti-affinity obtained!"),
            Affinity::WithPrimary => {
                self.out.warning(&format!(
                    "[WARNING] Some {replicas} are in the same {site} as their {word}"
                ));
            }
            Affinity::WithSibling => {
                self.out.warning(&format!(
                    "[WARNING] Some {replicas} of the same {word} are in the same {site}"
                ));
            }
        }
    }

    fn seat(&self, layout: &Layout, recruits: &[Recruit], seat: usize) -> String {
        let view = &recruits[seat].view;
        if let Some((_, primary)) = layout.replicas.iter().find(|(replica, _)| *replica == seat) {
            return format!(
                "S: {} {}\n   replicates {}",
                view.own.id, view.address, recruits[*primary].view.own.id
            );
        }
        let none = Slots::default();
        let slots = layout
            .primaries
            .iter()
            .find(|(primary, _)| *primary == seat)
            .map_or(&none, |(_, slots)| slots);
        let flags = "master".to_owned();
        Shown { id: &view.own.id, address: &view.address, slots, flags, primary: None, replicas: 0 }
            .lines(self.out.style, 0)
    }

    /// Makes a cluster of the nodes; if that fails they are as empty as before.
    async fn form(&self, crew: &mut Crew, steps: &[Step], ids: &[NodeId]) -> Outcome<()> {
        let mut last = "";
        let mut tell = |event: Event<'_>| match event {
            Event::Step(step) => {
                let line = match step {
                    Step::SetEpoch { .. } => {
                        ">>> Nodes configuration updated\n>>> Assign a different config epoch to each node"
                    }
                    Step::Join { .. } => ">>> Sending CLUSTER MEET messages to join the cluster",
                    _ => return,
                };
                if line != last {
                    self.out.info(line);
                    last = line;
                }
                if matches!(step, Step::Join { .. }) {
                    let end = if self.out.style == Style::Trib { "" } else { "\n" };
                    self.out.part(Kind::Plain, &format!("Waiting for the cluster to join{end}"));
                }
            }
            Event::Waiting(_) => self.out.part(Kind::Plain, "."),
            Event::Note(_) => self.tell(&event),
        };
        let applied = crew.apply(steps, &mut tell).await;
        let outcome = match applied {
            Ok(()) => {
                crew.settle(None, &mut |event| {
                    if matches!(event, Event::Waiting(_)) {
                        self.out.part(Kind::Plain, ".");
                    }
                })
                .await
            }
            Err(error) => Err(error),
        };
        self.out.plain("");
        let Err(error) = outcome else { return Ok(()) };
        let exit = self.failed(&error);
        let kept = crew.undo(ids).await;
        if kept.is_empty() {
            self.out.warning("The nodes were reset: they are as empty as before.");
        }
        for (node, error) in &kept {
            self.out.warning(&format!("{node} was not reset: {error}"));
        }
        Err(exit)
    }
}
