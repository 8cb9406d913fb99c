//! The metrics of a member of a fleet.

use metrics::Gauge;

use super::handles::Source;
use crate::metrics as ours;
use crate::policy::FleetState;
use crate::status::FleetStatus;

pub(super) struct FleetHandles {
    members: Gauge,
    granted: Gauge,
    wanted: Gauge,
    capacity: Gauge,
    strangers: Gauge,
    states: [(FleetState, Gauge); 6],
}

impl FleetHandles {
    pub(super) fn new(source: &Source) -> Self {
        source.describe(ours::FLEET_METRICS);
        let gauge = |metric| source.gauge(metric, []);
        let state =
            |state: FleetState| (state, source.gauge(&ours::FLEET_STATE, [(ours::STATE, state.as_str().into())]));
        Self {
            members: gauge(&ours::FLEET_MEMBERS),
            granted: gauge(&ours::FLEET_GRANTED),
            wanted: gauge(&ours::FLEET_WANTED),
            capacity: gauge(&ours::FLEET_CAPACITY),
            strangers: gauge(&ours::FLEET_STRANGERS),
            states: FleetState::ALL.map(state),
        }
    }

    pub(super) fn look(&self, status: &FleetStatus) {
        self.members.set(status.members as f64);
        self.granted.set(status.granted as f64);
        self.wanted.set(status.wanted as f64);
        self.capacity.set(status.capacity.unwrap_or_default() as f64);
        self.strangers.set(status.strangers as f64);
        self.show(Some(status.state));
    }

    /// The pool has ended.
    pub(super) fn end(&self) {
        let Self { members, granted, wanted, capacity, strangers, .. } = self;
        [members, granted, wanted, capacity, strangers].into_iter().for_each(|gauge| gauge.set(0.0));
        self.show(None);
    }

    fn show(&self, now: Option<FleetState>) {
        for (state, gauge) in &self.states {
            gauge.set(if Some(*state) == now { 1.0 } else { 0.0 });
        }
    }
}
