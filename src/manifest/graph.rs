//! Checks of whole variants: ports whose stage is not there, sets that were not extracted, cycles.

use std::collections::{BTreeMap, BTreeSet};

use super::diagnostic::{Diagnostic, Span};
use super::experiment::{ResolvedPort, default_targets};
use super::grid::Grid;
use super::raw::find;
use super::specs::Specs;
use super::stage::RawStage;
use super::substitute::equation;
use super::wiring::{Gap, Wiring, needed, place};
use crate::stages::Shape;

/// Checks every variant; mistakes go to `found`. `targets` are the stages asked for beside the default ones.
pub(super) fn check(
    stages: &[RawStage<'_>],
    specs: &Specs,
    grid: &Grid,
    wiring: &Wiring,
    targets: &[usize],
    found: &mut Vec<Diagnostic>,
) {
    let checker = Checker { stages, specs, grid, wiring };
    checker.gaps(targets, found);
    checker.sets(found);
    checker.cycles(found);
}

struct Checker<'a> {
    stages: &'a [RawStage<'a>],
    specs: &'a Specs,
    grid: &'a Grid,
    wiring: &'a Wiring,
}

impl Checker<'_> {
    fn rows(&self) -> impl Iterator<Item = &[Option<u32>]> {
        self.wiring.places.chunks(self.stages.len().max(1))
    }

    /// Ports to stages that `when` keeps out, in variants that need the port's stage.
    fn gaps(&self, targets: &[usize], found: &mut Vec<Diagnostic>) {
        let mut first: BTreeMap<(usize, Vec<String>, usize), (usize, usize)> = BTreeMap::new();
        for (row, places) in self.rows().enumerate() {
            let gaps_of =
                |stage: usize| places[stage].map_or(&[][..], |place| &self.wiring.gaps[place as usize]);
            if (0..places.len()).all(|stage| gaps_of(stage).is_empty()) {
                continue;
            }
            let mut wanted = default_targets(places, &self.wiring.resolved);
            wanted.extend(targets);
            for stage in needed(wanted, places, &self.wiring.resolved) {
                for Gap { path, target } in gaps_of(stage) {
                    first.entry((stage, path.clone(), *target)).or_insert((row, 0)).1 += 1;
                }
            }
        }
        for ((stage, path, target), (row, count)) in first {
            found.push(self.gap(&self.stages[stage], &path, &self.stages[target], row, count));
        }
    }

    fn gap(
        &self,
        stage: &RawStage<'_>,
        path: &[String],
        target: &RawStage<'_>,
        row: usize,
        count: usize,
    ) -> Diagnostic {
        let values: Vec<String> = self
            .grid
            .axes
            .iter()
            .zip(&self.grid.combinations[row])
            .map(|(axis, &place)| equation(axis, place))
            .collect();
        let more = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
        let message = format!(
            "`{}` needs `{}`, which is not in the variant `{}`{more}",
            stage.name,
            target.name,
            values.join(","),
        );
        let mut diagnostic =
            Diagnostic::new("stage::absent_stage", message).at(place(stage, path), "needed here");
        if let Some(span) = target.when_span() {
            diagnostic = diagnostic.at(span, format!("`{}` is only in these variants", target.name));
        }
        diagnostic.help(match stage.when_span() {
            None => format!("give `{}` the same `when`, or widen that of `{}`", stage.name, target.name),
            Some(_) => format!("narrow the `when` of `{}`, or widen that of `{}`", stage.name, target.name),
        })
    }

    /// A set that is read must be among the images of the `extract` stage that gives the features.
    fn sets(&self, found: &mut Vec<Diagnostic>) {
        let mut seen = BTreeSet::new();
        for places in self.rows() {
            for (stage, here) in places.iter().enumerate() {
                let Some(here) = *here else { continue };
                let reader = &self.wiring.resolved[here as usize];
                for port in &reader.ports {
                    let Shape::Group { set: Some(chosen_by) } = reader.spec.port(&port.field).shape else {
                        continue;
                    };
                    let (Some(there), Some(set)) = (places[port.stage], reader.wired(chosen_by)) else {
                        continue;
                    };
                    if seen.insert((here, there)) {
                        self.set(stage, chosen_by, set, port.stage, there, found);
                    }
                }
            }
        }
    }

    fn set(
        &self,
        stage: usize,
        chosen_by: &str,
        set: (usize, &str),
        upstream: usize,
        there: u32,
        found: &mut Vec<Diagnostic>,
    ) {
        let giver = &self.wiring.resolved[there as usize];
        let members: Vec<(usize, &str)> =
            giver.fan_out().map(|port| (port.stage, port.output.as_str())).collect();
        if !members.is_empty() && !members.contains(&set) {
            let path: Vec<&str> = chosen_by.split('.').collect();
            found.push(self.not_extracted(stage, &path, upstream, set, &members));
        }
    }

    fn not_extracted(
        &self,
        stage: usize,
        path: &[&str],
        upstream: usize,
        set: (usize, &str),
        members: &[(usize, &str)],
    ) -> Diagnostic {
        let (stage, upstream) = (&self.stages[stage], &self.stages[upstream]);
        let path: Vec<String> = path.iter().map(|&step| step.to_owned()).collect();
        let name = |&(set, output): &(usize, &str)| {
            let is_other = output != "images" || members.iter().any(|one| one.0 == set && one.1 != output);
            if is_other {
                format!("{}.{output}", self.stages[set].name)
            } else {
                self.stages[set].name.to_string()
            }
        };
        let names: Vec<String> = members.iter().map(|member| format!("`{}`", name(member))).collect();
        let message = format!("`{}` does not extract features of `{}`", upstream.name, name(&set));
        let images =
            find(upstream.table, &["images".to_owned()]).map_or(upstream.header, |place| place.value);
        Diagnostic::new("stage::set_not_extracted", message)
            .at(place(stage, &path), "not among its images")
            .at(images, format!("the images of `{}`", upstream.name))
            .help(format!("write {}, or add `{}` to its images", names.join(" or "), name(&set)))
    }

    /// Stages that wait for each other, each cycle once. The graph of all variants together is looked at
    /// first: where it has no cycle no variant has one.
    fn cycles(&self, found: &mut Vec<Diagnostic>) {
        let mut together: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); self.stages.len()];
        let distinct: BTreeSet<&[Option<u32>]> = self.rows().collect();
        for places in &distinct {
            for (stage, reads) in self.edges(places).into_iter().enumerate() {
                together[stage].extend(reads);
            }
        }
        if cycles_of(&together).is_empty() {
            return;
        }
        let each = distinct.iter().flat_map(|places| cycles_of(&self.edges(places)));
        for cycle in each.collect::<BTreeSet<_>>() {
            found.push(self.cycle(&cycle));
        }
    }

    fn edges(&self, places: &[Option<u32>]) -> Vec<BTreeSet<usize>> {
        let ports =
            |place: &Option<u32>| place.map_or(&[][..], |one| &self.wiring.resolved[one as usize].ports);
        let reads = |place| {
            let ports: &[ResolvedPort] = ports(place);
            ports.iter().filter(|port| port.is_read()).map(|port| port.stage).collect()
        };
        places.iter().map(reads).collect()
    }

    fn cycle(&self, cycle: &[usize]) -> Diagnostic {
        let name = |stage: usize| self.stages[stage].name.as_str();
        let mut names: Vec<&str> = cycle.iter().map(|&stage| name(stage)).collect();
        names.push(names[0]);
        let message = format!("stages wait for each other: {}", names.join(" -> "));
        let mut diagnostic = Diagnostic::new("stage::cycle", message).help("remove one of these inputs");
        for (place_in_cycle, &stage) in cycle.iter().enumerate() {
            let next = cycle[(place_in_cycle + 1) % cycle.len()];
            let span = self.port_span(stage, next);
            diagnostic = diagnostic.at(span, format!("`{}` reads `{}`", name(stage), name(next)));
        }
        diagnostic
    }

    /// Where `stage` names `next`.
    fn port_span(&self, stage: usize, next: usize) -> Span {
        let links = self.specs.readings[stage].iter().flat_map(|reading| &reading.links);
        let mut links = links.filter(|link| link.stage == next && link.is_read());
        links.next().map_or(self.stages[stage].header, |link| place(&self.stages[stage], &link.path()))
    }
}

/// The cycles that one walk over the graph meets, each turned so that its smallest stage comes first.
fn cycles_of(edges: &[BTreeSet<usize>]) -> Vec<Vec<usize>> {
    let mut walk = Walk { edges, is_done: vec![false; edges.len()], path: Vec::new(), cycles: Vec::new() };
    for start in 0..edges.len() {
        walk.visit(start);
    }
    walk.cycles
}

struct Walk<'a> {
    edges: &'a [BTreeSet<usize>],
    is_done: Vec<bool>,
    path: Vec<usize>,
    cycles: Vec<Vec<usize>>,
}

impl Walk<'_> {
    fn visit(&mut self, stage: usize) {
        if let Some(start) = self.path.iter().position(|&open| open == stage) {
            let mut cycle = self.path[start..].to_vec();
            let smallest = (0..cycle.len()).min_by_key(|&place| cycle[place]).unwrap_or(0);
            cycle.rotate_left(smallest);
            self.cycles.push(cycle);
            return;
        }
        if self.is_done[stage] {
            return;
        }
        self.path.push(stage);
        for &next in &self.edges[stage] {
            self.visit(next);
        }
        self.path.pop();
        self.is_done[stage] = true;
    }
}
