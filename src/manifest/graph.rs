//! Checks of whole variants: ports to absent stages, image sets that were not extracted, cycles.

use std::collections::{BTreeMap, BTreeSet, btree_set};

use super::diagnostic::{Diagnostic, Span};
use super::experiment::{ResolvedStage, default_targets};
use super::index::{ResolvedIndex, StageIndex};
use super::outline::Outline;
use super::raw::locate;
use super::specs::{Link, Specs, StageState};
use super::stage::RawStage;
use super::targets::Targets;
use super::wiring::{Gap, Wiring};
use crate::artifacts::Artifact;
use crate::stages::Shape;

/// Checks every variant.
pub(super) fn check(
    outline: &Outline<'_>,
    specs: &Specs,
    wiring: &Wiring,
    targets: &Targets,
    found: &mut Vec<Diagnostic>,
) {
    let mut checker = Checker { outline, specs, wiring, found };
    checker.gaps(targets);
    checker.sets();
    checker.cycles();
}

/// Most stages of a cycle that are named.
const MOST_NAMED: usize = 12;

struct Checker<'a> {
    outline: &'a Outline<'a>,
    specs: &'a Specs,
    wiring: &'a Wiring,
    found: &'a mut Vec<Diagnostic>,
}

/// An output of a stage.
type OutputOf<'a> = (StageIndex, &'a str);

/// What each stage of a combination is resolved to.
type Row<'a> = &'a [Option<ResolvedIndex>];

/// How often a gap (a port to an absent stage) occurs.
struct GapCount {
    /// Index of the first combination in which it occurs.
    first_row: usize,
    count: usize,
}

impl<'a> Checker<'a> {
    fn rows(&self) -> impl Iterator<Item = Row<'a>> + use<'a> {
        self.wiring.table.chunks(self.outline.stages.len().max(1))
    }

    /// Reports ports to absent stages, in variants that need the port's own stage.
    fn gaps(&mut self, targets: &Targets) {
        let wiring = self.wiring;
        let mut counts: BTreeMap<(StageIndex, &[String], StageIndex), GapCount> = BTreeMap::new();
        for (row, resolved) in self.rows().enumerate() {
            let gaps_of = |stage: StageIndex| resolved[stage.0].map_or(&[][..], |index| wiring.gaps(index));
            if (0..resolved.len()).all(|stage| gaps_of(StageIndex(stage)).is_empty()) {
                continue;
            }
            let mut wanted = if targets.of_manifest.is_empty() {
                default_targets(resolved, &wiring.resolved)
            } else {
                targets.of_manifest.clone()
            };
            wanted.extend(&targets.of_command_line);
            for stage in wiring.needed(wanted, resolved) {
                for Gap { path, target } in gaps_of(stage) {
                    let new = GapCount { first_row: row, count: 0 };
                    counts.entry((stage, path, *target)).or_insert(new).count += 1;
                }
            }
        }
        for ((stage, path, target), count) in counts {
            let [stage, target] = [stage, target].map(|index| self.outline.stage(index));
            self.found.push(self.gap(stage, path, target, &count));
        }
    }

    fn gap(
        &self,
        stage: &RawStage<'_>,
        path: &[String],
        target: &RawStage<'_>,
        count: &GapCount,
    ) -> Diagnostic {
        let grid = &self.outline.grid;
        let variant = grid.equations(&grid.combinations[count.first_row]);
        let more = if count.count > 1 { format!(" and {} more", count.count - 1) } else { String::new() };
        let message = format!(
            "`{}` needs `{}`, which is not in the variant `{variant}`{more}",
            stage.name, target.name,
        );
        let mut diagnostic =
            Diagnostic::new("stage::absent_stage", message).at(stage.span(path), "needed here");
        if let Some(span) = target.when_span() {
            diagnostic = diagnostic.at(span, format!("`{}` is only in these variants", target.name));
        }
        diagnostic.help(match stage.when_span() {
            None => format!("give `{}` the same `when`, or widen that of `{}`", stage.name, target.name),
            Some(_) => format!("narrow the `when` of `{}`, or widen that of `{}`", stage.name, target.name),
        })
    }

    /// Reports features that belong to no image set, and image sets that a stage selects and that the upstream stage has
    /// no features of.
    fn sets(&mut self) {
        let (mut seen, mut without_images) = (BTreeSet::new(), BTreeSet::new());
        for (combination, row) in self.rows().enumerate() {
            for (stage, reader) in row.iter().enumerate() {
                let Some(reader) = *reader else { continue };
                let resolved = self.wiring.resolved(reader);
                for port in &resolved.ports {
                    let Shape::Group { set } = resolved.spec.port(&port.field).shape else { continue };
                    let Some(giver) = row[port.stage.0] else { continue };
                    if !seen.insert((reader, giver)) {
                        continue;
                    }
                    let members = members(self.wiring.resolved(giver));
                    let [stage, upstream] =
                        [StageIndex(stage), port.stage].map(|index| self.outline.stage(index));
                    // A gap, or a mistake in the fields or in a port, is reported by itself.
                    let is_sound = self.wiring.gaps(giver).is_empty()
                        && self.specs.all_of(port.stage).iter().all(|parsed| parsed.is_sound)
                        && self.is_wired(port.stage, giver, combination);
                    let lacks_images =
                        is_sound && members.is_empty() && port.artifact == Artifact::FeatureSet;
                    if lacks_images && without_images.insert(port.stage) {
                        self.found.push(no_image_set(stage, &port.field, upstream));
                    } else if let Some((chosen_by, set)) = set.zip(set.and_then(|set| resolved.wired(set)))
                        && !members.is_empty()
                        && !members.contains(&set)
                    {
                        self.found.push(self.not_extracted(stage, chosen_by, upstream, set, &members));
                    }
                }
            }
        }
    }

    /// Whether every port of a stage to a stage of the combination is connected.
    fn is_wired(&self, stage: StageIndex, resolved: ResolvedIndex, combination: usize) -> bool {
        let StageState::Parsed(parsed) = self.specs.state(stage, combination) else { return false };
        let links = &self.specs.parsed(stage, parsed).links;
        let is_present = |link: &&Link| self.specs.state(link.stage, combination) != StageState::Absent;
        links.iter().filter(is_present).count() == self.wiring.resolved(resolved).ports.len()
    }

    fn not_extracted(
        &self,
        stage: &RawStage<'_>,
        chosen_by: &str,
        upstream: &RawStage<'_>,
        set: OutputOf<'_>,
        members: &[OutputOf<'_>],
    ) -> Diagnostic {
        let path: Vec<String> = chosen_by.split('.').map(str::to_owned).collect();
        let name = |&(set, output): &OutputOf<'_>| {
            let is_other = output != "images" || members.iter().any(|one| one.0 == set && one.1 != output);
            let stage = &self.outline.stage(set).name;
            if is_other { format!("{stage}.{output}") } else { stage.to_string() }
        };
        let names: Vec<String> = members.iter().map(|member| format!("`{}`", name(member))).collect();
        let message = format!("`{}` does not extract features of `{}`", upstream.name, name(&set));
        let images =
            ["images", "inputs"].iter().find_map(|field| locate(upstream.table, &[(*field).to_owned()]));
        let images = images.map_or(upstream.header, |location| location.value);
        Diagnostic::new("stage::set_not_extracted", message)
            .at(stage.span(&path), "not among its images")
            .at(images, format!("the images of `{}`", upstream.name))
            .help(format!("write {}, or add `{}` to its images", names.join(" or "), name(&set)))
    }

    /// Reports stages that depend on each other, each cycle once. The graph of all variants together is searched first:
    /// if it has no cycle, no variant has one.
    fn cycles(&mut self) {
        let mut together: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); self.outline.stages.len()];
        let distinct: BTreeSet<Row<'_>> = self.rows().collect();
        for row in &distinct {
            for (stage, reads) in self.edges(row).into_iter().enumerate() {
                together[stage].extend(reads);
            }
        }
        if cycles_of(&together).is_empty() {
            return;
        }
        let each = distinct.iter().flat_map(|row| cycles_of(&self.edges(row)));
        for cycle in each.collect::<BTreeSet<_>>() {
            let cycle: Vec<StageIndex> = cycle.into_iter().map(StageIndex).collect();
            self.found.push(self.cycle(&cycle));
        }
    }

    /// Returns, for each stage of a combination, the stages that it reads.
    fn edges(&self, row: Row<'_>) -> Vec<BTreeSet<usize>> {
        let resolved = row.iter().map(|index| index.map(|index| self.wiring.resolved(index)));
        resolved
            .map(|stage| stage.into_iter().flat_map(ResolvedStage::upstream).map(|stage| stage.0).collect())
            .collect()
    }

    fn cycle(&self, cycle: &[StageIndex]) -> Diagnostic {
        let name = |stage: StageIndex| self.outline.stage(stage).name.as_str();
        let mut names: Vec<&str> = cycle.iter().take(MOST_NAMED).map(|&stage| name(stage)).collect();
        let more = format!("{} more", cycle.len().saturating_sub(MOST_NAMED));
        if cycle.len() > MOST_NAMED {
            names.push(&more);
        }
        names.push(names[0]);
        let message = format!("stages wait for each other: {}", names.join(" -> "));
        let mut diagnostic = Diagnostic::new("stage::cycle", message).help("remove one of these inputs");
        for (&stage, &next) in cycle.iter().zip(cycle.iter().cycle().skip(1)).take(MOST_NAMED) {
            let span = self.port_span(stage, next);
            diagnostic = diagnostic.at(span, format!("`{}` reads `{}`", name(stage), name(next)));
        }
        diagnostic
    }

    /// Returns the span of the field in which `stage` names `next`.
    fn port_span(&self, stage: StageIndex, next: StageIndex) -> Span {
        let mut links = self.specs.all_of(stage).iter().flat_map(|parsed| &parsed.links);
        let link = links.find(|link| link.stage == next && link.is_read());
        let stage = self.outline.stage(stage);
        link.map_or(stage.header, |link| stage.span(&link.path()))
    }
}

/// Returns the mistake of a stage whose features belong to no image set.
fn no_image_set(stage: &RawStage<'_>, field: &str, upstream: &RawStage<'_>) -> Diagnostic {
    let message =
        format!("`{}` gives features, but reads no image set that they could belong to", upstream.name);
    Diagnostic::new("stage::no_image_set", message)
        .at(upstream.header, "reads no ImageSet")
        .at(stage.span(&[field.to_owned()]), "selects features by the labels of their images")
        .help(format!(
            "add the images to the inputs of `{}`: inputs = {{ images = \"images\" }}",
            upstream.name
        ))
}

/// Returns the image sets that a stage gives features of.
fn members(giver: &ResolvedStage) -> Vec<OutputOf<'_>> {
    giver.image_sets().map(|port| (port.stage, port.output.as_str())).collect()
}

/// The cycles that one walk over the graph meets, each turned so that its smallest stage comes first. The walk keeps its
/// path itself: a chain of stages may be longer than the stack is deep.
fn cycles_of(edges: &[BTreeSet<usize>]) -> Vec<Vec<usize>> {
    let (is_done, positions) = (vec![false; edges.len()], vec![None; edges.len()]);
    let mut walk = Walk { edges, is_done, positions, path: Vec::new(), cycles: Vec::new() };
    for start in 0..edges.len() {
        walk.enter(start);
        while let Some((stage, reads)) = walk.path.last_mut() {
            let stage = *stage;
            match reads.next() {
                Some(&next) => walk.enter(next),
                None => walk.leave(stage),
            }
        }
    }
    walk.cycles
}

struct Walk<'a> {
    edges: &'a [BTreeSet<usize>],
    is_done: Vec<bool>,
    /// Where each stage stands on the path.
    positions: Vec<Option<usize>>,
    /// The open stages, each with the stages that it reads and that were not entered yet.
    path: Vec<(usize, btree_set::Iter<'a, usize>)>,
    cycles: Vec<Vec<usize>>,
}

impl Walk<'_> {
    fn enter(&mut self, stage: usize) {
        if let Some(start) = self.positions[stage] {
            let mut cycle: Vec<usize> = self.path[start..].iter().map(|(stage, _)| *stage).collect();
            let smallest = (0..cycle.len()).min_by_key(|&index| cycle[index]).unwrap_or(0);
            cycle.rotate_left(smallest);
            self.cycles.push(cycle);
        } else if !self.is_done[stage] {
            self.positions[stage] = Some(self.path.len());
            self.path.push((stage, self.edges[stage].iter()));
        }
    }

    fn leave(&mut self, stage: usize) {
        self.path.pop();
        self.positions[stage] = None;
        self.is_done[stage] = true;
    }
}
