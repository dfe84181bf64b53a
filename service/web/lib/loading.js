// Data that takes a while to come.

import { useCallback, useEffect, useState } from "../vendor/preact.js";

import { ProblemError } from "../api/client.js";

const EMPTY = { value: null, problem: null, isLoading: false };

/** The problem document of an error; the error itself where it is a fault of this page. */
export function problemIn(error) {
  if (error instanceof ProblemError) return error.problem;
  throw error;
}

/**
 * What `load` answers with, asked for again whenever `inputs` change; nothing where one of them is
 * null. Until the next answer is there the last one stays.
 * @returns {{value: any, problem: object | null, isLoading: boolean, reload: () => void}}
 */
export function useLoaded(load, inputs, { delayMs = 0 } = {}) {
  const [state, setState] = useState(EMPTY);
  const [round, setRound] = useState(0);
  useEffect(() => {
    if (inputs.some((input) => input == null)) {
      setState(EMPTY);
      return undefined;
    }
    const controller = new AbortController();
    setState((last) => ({ ...last, isLoading: true }));
    const timer = setTimeout(async () => {
      try {
        const value = await load(controller.signal);
        if (!controller.signal.aborted) setState({ value, problem: null, isLoading: false });
      } catch (error) {
        if (controller.signal.aborted) return;
        setState({ value: null, problem: problemIn(error), isLoading: false });
      }
    }, delayMs);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [...inputs, round]);
  const reload = useCallback(() => setRound((last) => last + 1), []);
  return { ...state, reload };
}
