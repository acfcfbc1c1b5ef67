"""The input path beside the steps of a training."""

import time

from benchmarks import input_path, step_time


def test_the_time_of_the_input_path_is_hidden_behind_the_steps(tmp_path):
    path, steps = str(tmp_path / "records"), 10
    step_time.write_records(path, 2 * input_path.BATCH, input_path.SHAPE)
    build = input_path.build_stages([path])[input_path.WHOLE]  # as the Trainer reads, with the usual augmentation

    def run(step):
        batches = iter(build())
        for _ in range(3):
            next(batches)
        clock, processor = time.perf_counter(), time.process_time()
        for _ in range(steps):
            next(batches)
            time.sleep(step)  # as long as a GPU would be busy
        return time.perf_counter() - clock, time.process_time() - processor

    step = 4 * run(0.0)[1] / steps  # a busy machine has to give a quarter of a core
    # Were nothing made ahead, a step would wait for a batch and take 1.25 times as long. A busy machine can only lengthen it.
    assert any(run(step)[0] < 1.12 * steps * step for _ in range(3))
