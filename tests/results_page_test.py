#!/usr/bin/env python3
"""scripts/results_page.py keeps every result under its own name, and averages over seeds alone."""
import copy
import json
import os
import subprocess
import sys
import tempfile
import unittest

SCRIPT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "scripts", "results_page.py")


def result(seed=42, epochs=5, accuracy=50.0):
    """As much of a result.json as the page shows."""
    config = {"name": "row", "seed": seed, "precision": "fp32", "train": {"epochs": epochs}}
    seconds = {"train": 60, "eval": 6}
    return {"complete": True, "name": "row", "config": config,
            "identity": {"seed": seed, "precision": "fp32", "train": {"epochs": epochs}},
            "rep": {"revision": "abc"}, "device": {"name": "machine", "threads": 1},
            "inputs": {"dataset": {"test_images": 100}}, "tasks": [{"test_images": 100}],
            "metrics": {"average_accuracy": accuracy, "average_incremental_accuracy": accuracy, "forgetting": 1.0,
                        "task_incremental": {"average_accuracy": accuracy}},
            "cost": {"state_bytes": 1, "total": {"macs": {"train": {"forward": 1}, "eval": 1}, "seconds": seconds,
                                                 "peak_tensor_bytes": 1, "peak_rss_bytes": 1,
                                                 "energy_joules": None}}}


class ResultsPage(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        os.makedirs(os.path.join(self.folder, "results", "table"))
        with open(os.path.join(self.folder, "results", "table", "about.md"), "w", encoding="utf-8") as file:
            file.write("## A table\n\n{table}\n")

    def put(self, path, content):
        at = os.path.join(self.folder, path)
        os.makedirs(at, exist_ok=True)
        with open(os.path.join(at, "result.json"), "w", encoding="utf-8") as file:
            json.dump(content, file)

    def page(self, *arguments):
        """(exit code, what it said, RESULTS.md)"""
        results = os.path.join(self.folder, "results")
        done = subprocess.run([sys.executable, SCRIPT, "--results", results, *arguments], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, encoding="utf-8", check=False)
        path = os.path.join(results, "RESULTS.md")
        text = ""
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                text = file.read()
        return done.returncode, done.stdout, text

    def keep(self, folder, *more):
        return self.page("--keep", "table", os.path.join(self.folder, folder), *more)

    def test_marks_hours_that_lack_what_another_run_computed(self):
        borrowed = result()
        borrowed["inputs"]["queries_from_files"] = {"train": 0, "test": 100}
        self.put("sweep/a", borrowed)
        code, said, text = self.keep("sweep")
        self.assertEqual(code, 0, said)
        self.assertIn("| 0.02 | 0.02† |", text)
        self.assertIn("† Features", text)

    def test_averages_over_seeds(self):
        self.put("sweep/a", result(1, accuracy=50.0))
        self.put("sweep/b", result(2, accuracy=54.0))
        code, said, text = self.keep("sweep")
        self.assertEqual(code, 0, said)
        self.assertIn("| `row` | 52.00 ± 2.83 (n = 2) |", text)

    def test_never_averages_over_configurations(self):
        self.put("results/table/a", result(1, epochs=5))
        self.put("results/table/b", result(2, epochs=1))
        code, said, text = self.page()
        self.assertEqual(code, 0, said)
        self.assertIn("| `row (1)` |", text)
        self.assertIn("| `row (2)` |", text)
        self.assertNotIn("n = 2", text)

    def test_counts_an_option_that_one_build_lacks_as_off(self):
        newer = result(2)
        newer["identity"]["stream"] = {"stop_after": 0}
        self.put("results/table/a", result(1))
        self.put("results/table/b", newer)
        self.assertIn("n = 2", self.page()[2])
        newer = copy.deepcopy(newer)
        newer["identity"]["stream"]["stop_after"] = 3
        self.put("results/table/b", newer)
        self.assertNotIn("n = 2", self.page()[2])

    def test_replaces_no_result_of_another_configuration_unless_told(self):
        self.put("first/a", result(accuracy=50.0))
        self.assertEqual(self.keep("first")[0], 0)
        self.put("second/a", result(epochs=1, accuracy=20.0))
        code, said, text = self.keep("second")
        self.assertNotEqual(code, 0)
        self.assertIn("train.epochs differs", said)
        self.assertIn("| `row` | 50.00", text)
        code, said, text = self.keep("second", "--replace")
        self.assertEqual(code, 0, said)
        self.assertIn("| `row` | 20.00", text)

    def test_refuses_two_runs_of_one_name(self):
        self.put("sweep/a", result(epochs=5))
        self.put("sweep/b", result(epochs=1))
        code, said, text = self.keep("sweep")
        self.assertNotEqual(code, 0)
        self.assertIn("are both called row and differ in train.epochs", said)
        self.assertFalse(os.path.exists(os.path.join(self.folder, "results", "table", "row")))


if __name__ == "__main__":
    unittest.main()
