"""The one training loop, and what it stands on: from a checked configuration to weights and checkpoints.

| file | what |
|---|---|
| `run.py` | what a run is made of, by its configuration and in its folder: data, labels, model, trained variables |
| `claims.py` | a folder is of one process at a time |
| `said.py` | what a run is told: its rows under the label view, what is said of them |
| `networks.py` | its backbone, and the head on it |
| `phases.py` | a run before it starts, and one phase of it: method, miner, the shapes of batches and state |
| `dispatch.py` | the program that the devices run, and the batches that it is given |
| `training.py` | the loop itself: phases, steps, logs, evals, saves |
| `asking.py` | labels that are asked for between phases |
| `choice.py` | the best step's weights beside the last one's |
| `stopping.py` | SIGTERM and Ctrl-C |
| `picks.py`, `suited.py`, `starts.py` | what a user need not say: sizes, recipes that suit the rows, or an encoder |
| `fitted.py` | the run of `labelfx.fit`, of these |

But for these four nothing here knows a method, an objective or a source by name. What a network is worth is said in
`labelfx.evals`.
"""
