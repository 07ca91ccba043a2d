"""One line of progress: what is being done, none of it if not asked for."""

import numpy as np

import em_ppl as em
from em_ppl.models.rescorla_wagner import rescorla_wagner
from em_ppl.progress import Progress


def test_the_line_says_what_is_done(capsys):
    with Progress(show=True) as progress:
        progress.say("compiling")
        progress.step(3, -12.5, 2e-3, 1e-5)
    assert "EM step 3: log evidence -12.5000, change 2.0e-03 (until 1e-05)" in capsys.readouterr().out


def test_no_line_if_none_is_wanted(capsys, learner_fits):
    with Progress(show=False) as progress:
        progress.say("compiling")
    learner_fits["corrected"].to_inference_data(draws=2, progressbar=False)
    assert capsys.readouterr().out == ""


def test_fit_shows_it_by_default(capsys, learners):
    em.fit(rescorla_wagner, learners, max_iter=500)
    out = capsys.readouterr().out
    assert "EM step" in out
    assert np.char.count(out, "\n") <= 2
