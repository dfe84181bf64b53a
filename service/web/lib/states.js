// Where a job can stand.

const NAMES = {
  queued: "Waiting",
  running: "Running",
  cancelling: "Stopping",
  cancelled: "Cancelled",
  succeeded: "Done",
  failed: "Failed",
  expired: "Expired",
};
const OVER = new Set(["succeeded", "failed", "cancelled", "expired"]);

export const JOB_STATES = Object.keys(NAMES);

export const isOver = (state) => OVER.has(state);

export const stateName = (state) => NAMES[state] ?? state;
