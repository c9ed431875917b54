//! What a stage needs of a machine.

use super::resources::{Capacity, Need};
use crate::config::StageCell;
use crate::stages::contract::Demand;

/// What a stage needs: what its table says, else what is usual for its kind.
pub fn need(cell: &StageCell, capacity: &Capacity) -> Need {
    let demand = cell.stage.demand();
    let wanted = cell.execution.resources.clone().unwrap_or_default();
    let alone = cell.execution.exclusive.unwrap_or(demand == Demand::Alone);
    let usual = match demand {
        Demand::Light => capacity.cpus.min(1.0),
        Demand::Whole | Demand::Alone => capacity.cpus,
    };
    Need {
        cpus: wanted.cpus.unwrap_or(usual),
        memory: wanted.memory.unwrap_or(0),
        gpus: wanted.gpus.unwrap_or(0.0),
        alone,
    }
}
