"The statistics of whole grids, on published records, and without their optional packages."
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from initpools.core import UserError
from initpools.report.answers import answers, tally
from initpools.report.comparison import lead_curves, leads, moments, side_by_side
from initpools.report.comparison_plots import lead_panels, verdict_maps
from initpools.report.ranks import rank_matrix, rank_pools
from initpools.report.statistics import differences

ROOT = Path(__file__).resolve().parents[1]


def numbers(*figures):
    "Published rounds, as the pages' csv files have them."
    return pd.concat([pd.read_csv(ROOT/"figures"/f"{f}.csv").assign(dataset=f) for f in figures], ignore_index=True)


def test_leads_of_cells_average_to_the_figure_s_differences():
    "What the answer table says query by query is what a figure's page says of their mean."
    frame = numbers("figure_5_quick")
    table = answers(frame)
    last = frame[frame["round"] == frame["round"].max()]
    paper = differences(last, "accuracy").set_index("sampler").difference
    ours = table.groupby("sampler").end.mean()
    np.testing.assert_allclose(ours[paper.index], paper, atol=1e-12)


def test_three_seeds_get_no_verdict():
    "Published quick figures have three seeds: everything is open, and nothing is resampled."
    table = answers(numbers("figure_2_quick", "figure_5_quick"))
    assert tally(table)[["better", "equal", "worse"]].to_numpy().sum() == 0 and set(table.seeds) == {3}
    assert set(table.half_life_said) == {"too few seeds"} and table.area_low.isna().all()


def test_pictures_of_published_records():
    frame = numbers("figure_2_quick", "figure_5_quick")
    fig = verdict_maps(answers(frame))
    assert [len(ax.patches) for ax in fig.axes] == [16, 12] # four pools here, three there
    one = lead_curves(side_by_side(frame[frame.dataset == "figure_5_quick"]))
    assert len(lead_panels(one).axes) == 4


def test_ranks_take_only_pools_that_all_sets_have():
    values = moments(side_by_side(numbers("figure_2_quick", "figure_5_quick")))
    with pytest.raises(UserError, match="two of each are needed"): rank_pools(rank_matrix(values))
    shared = values[values.index.get_level_values("sampler").isin(["random", "vae"])]
    assert rank_pools(rank_matrix(shared)).sets.tolist() == [2, 2]


def test_experiments_of_one_name_are_refused():
    "Two figures of one data set thrown together pair runs that do not belong together."
    frame = numbers("figure_2_quick")
    with pytest.raises(UserError, match="name the column that tells them apart"):
        side_by_side(pd.concat([frame, frame.assign(accuracy=0.)]))
    with pytest.raises(UserError, match="add it to the grid"):
        leads(moments(side_by_side(frame[frame.sampler != "random"])))


def test_the_extra_is_named_where_it_is_missing():
    "The package imports without statsmodels and scikit-posthocs, and says what to install when they are needed."
    code = """if True:
        import sys
        sys.modules["statsmodels"] = sys.modules["scikit_posthocs"] = None
        import pandas as pd
        from initpools.report import answers, comparison, comparison_plots, half_lives, power, ranks
        try: comparison.holm(pd.Series([.1]))
        except comparison.UserError as e: print(e)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "Corrections for many tests need statsmodels: pip install 'initpools[report]'.", (
        done.stderr)


def test_optional_packages_are_imported_where_they_are_used():
    code = ("import sys, initpools.report.answers, initpools.report.comparison_plots; "
            "print([m for m in ('statsmodels', 'scikit_posthocs', 'seaborn') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
