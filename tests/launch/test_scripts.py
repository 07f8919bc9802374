"""The scripts that start runs on clusters: what they print in a dry run, what they refuse, when they start again.

Only stand-ins of the clusters' programs are ever on the path here.
"""

import contextlib
import pathlib
import shlex
import shutil
import subprocess

import pytest
import yaml

from ssu_jax.cli import main

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"
TOOLS = "bash sed grep cut cat date dirname basename sleep mkdir git env".split()
ENDS = [1, 2, 70, 77, 78, 79, 126, 127]  # starting again does not help
QUEUED = "tpu_queued_resources.sh --name run1 --project p --zone z --accelerator-type v5litepod-256 \
--runtime-version v2-alpha-tpuv5-lite --config configs/nano.py --workdir gs://bucket/runs/1"
XPK = "xpk.sh --name run1 --cluster c --project p --zone z --tpu-type v5litepod-256 --image r/ssu:1 \
--config configs/nano.py --workdir /data/run1"
JOBSET = "gke_jobset.sh --name run1 --topology v5e:16x16 --image r/ssu:1 --config configs/nano.py \
--workdir gs://bucket/runs/1"
SLURM = "slurm.sh --name run1 --nodes 2 --gpus-per-node 8 --time 60 --config configs/nano.py --workdir /scratch/run1"
LINES = (QUEUED, XPK, JOBSET, SLURM)
OPTIONS = ["--config.data.dir=/mnt/b/data", '--config.name=it\'s "a & b" $c']


@pytest.fixture
def path(tmp_path) -> pathlib.Path:
    """A folder with a few everyday tools and no program of any cluster; the only one on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(shutil.which(tool))
    return folder


def stand_in(path: pathlib.Path, name: str, body: str) -> None:
    (path / name).write_text(f"#!/usr/bin/env bash\n{body}\n", encoding="utf-8")
    (path / name).chmod(0o755)


def launch(path: pathlib.Path, line: str, *more: str, **options) -> subprocess.CompletedProcess:
    script, *arguments = shlex.split(line)
    return subprocess.run(
        ["bash", str(LAUNCH / script), *arguments, *more],
        env={"PATH": str(path), "HOME": str(path), "TMPDIR": str(path)},
        capture_output=True, text=True, timeout=60, check=False, **options,
    )  # fmt: skip


def dry(path: pathlib.Path, line: str, *more: str) -> str:
    done = launch(path, line, "--dry-run", *more)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def commands(text: str) -> list[list[str]]:
    return [shlex.split(line) for line in text.splitlines()]


def flags(words: list[str]) -> dict[str, str]:
    return dict(word.partition("=")[::2] for word in words if word.startswith("--"))


def is_understood(words: list[str]) -> None:
    """The words start with ssu, and its own parser takes the rest."""
    assert pathlib.Path(words[0]).name == "ssu"
    assert words[-2:] == OPTIONS
    with contextlib.chdir(ROOT):
        args = main._parse(words[1:])
    assert args.stopped_code == 75
    assert args.config.name == OPTIONS[1].partition("=")[2]


@pytest.mark.parametrize("script", sorted(LAUNCH.glob("*.sh")), ids=lambda script: script.name)
def test_bash_reads_every_script(script):
    assert subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=True).stderr == ""


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split()[0])
def test_help_names_every_option_and_ends_well(line, path):
    script = line.split()[0]
    done = launch(path, f"{script} --help")
    assert done.returncode == 0
    read = (LAUNCH / script).read_text().partition("read_options ")[2].partition('"$@"')[0]
    for name in [*shlex.split(read.replace("\\\n", ""))[0].split(), *shlex.split(read.replace("\\\n", ""))[1].split()]:
        assert f"--{name.replace('_', '-')}" in done.stdout, name
    assert "--dry-run" in done.stdout
    assert "#" not in done.stdout


@pytest.mark.parametrize(
    ("line", "change", "message"),
    [
        (QUEUED, ("run1 ", "Run_1 "), "--name: wanted at most 40 small letters, digits and hyphens, got Run_1"),
        (XPK, ("--cluster c", ""), "wanted --cluster (see --help)"),
        (SLURM, ("configs/nano.py", "configs/none.py"), "no such file in the checkout: configs/none.py"),
        (JOBSET, ("--config configs/nano.py", "--config"), "--config wants a value"),
        (
            XPK,
            ("--name", "--colour red --name"),
            "no such option: --colour (see --help; options of ssu train",
        ),
        (SLURM, ("--name", "--max-restarts many --name"), "--max-restarts: wanted a whole number, got many"),
        (JOBSET, ("v5e:16x16", "v5e:16"), "--topology: wanted v4:4x4x8, v5e:16x16, v5p:4x8x8, v6e:16x16 and the like"),
        (
            QUEUED,
            ("gs://", "my/"),
            "wanted an absolute path that every host sees, or gs://BUCKET/FOLDER, got my/",
        ),
        (SLURM, ("/scratch", "scratch"), "--workdir: wanted an absolute path that every node sees, got scratch/run1"),
    ],
)
def test_a_wrong_value_is_one_line_and_exit_code_2(line, change, message, path):
    done = launch(path, line.replace(*change), "--dry-run")
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"{line.split()[0]}: error: ")


@pytest.mark.parametrize(
    ("line", "program"), [(QUEUED, "gcloud"), (XPK, "xpk"), (JOBSET, "kubectl"), (SLURM, "sbatch")]
)
def test_a_missing_program_is_named(line, program, path):
    done = launch(path, line)
    assert done.returncode == 2
    assert f": error: {program} is not installed: " in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_queued_resources_in_a_dry_run(path):
    create, look, archive, copy, prepare, train, delete = commands(dry(path, QUEUED, "--", *OPTIONS))
    for words in (create, look, copy, prepare, train, delete):
        assert words[:4] == "gcloud compute tpus queued-resources".split()
        assert flags(words).items() >= {"--project": "p", "--zone": "z"}.items()
    assert create[4:6] == ["create", "run1"]
    wanted = {"--accelerator-type": "v5litepod-256", "--runtime-version": "v2-alpha-tpuv5-lite", "--node-id": "run1"}
    assert flags(create).items() >= {**wanted, "--spot": ""}.items()
    assert look[4:] == ["describe", "run1", "--project=p", "--zone=z", "--format=value(state.state)"]
    assert archive[0] == "git"
    for words in (copy, prepare, train):
        assert flags(words).items() >= {"--worker": "all", "--node": "all"}.items()
        assert int(flags(words)["--batch-size"]) >= 1024  # all hosts at once
    assert flags(prepare)["--command"].endswith("ssu_jax/launch/node.sh tpu bucket")
    told = flags(train)["--command"]
    assert told.startswith("cd ssu_jax && exec flock ")
    words = shlex.split(told)
    assert words[words.index("--workdir") + 1] == "/mnt/bucket/runs/1"
    is_understood(words[words.index(".venv/bin/ssu") :])
    assert delete[4:6] == ["delete", "run1"]
    create = commands(dry(path, QUEUED, "--num-slices=2", "--on-demand", "--keep"))[0]
    assert flags(create).items() >= {"--node-count": "2", "--node-prefix": "run1"}.items()
    assert not {"--spot", "--node-id"} & set(flags(create))


GCLOUD = """
shift 3
echo "$1" >> calls
case "$1 $*" in
  describe*) next="$(head -n 1 states)"; sed -i 1d states; [ "$next" != GONE ] || exit 1; echo "$next" ;;
  scp*) [ ! -e deaf ] || { rm deaf && exit 1; } ;;
  ssh*train*) code="$(head -n 1 codes)"; sed -i 1d codes; exit "$code" ;;
esac
"""


def queue_run(path, states: str, codes: str, *more: str) -> tuple[int, list[str], str]:
    """Exit code, verbs that gcloud heard, what was said. states: told by `describe`; codes: of run after run."""
    (path / "head").symlink_to(shutil.which("head"))
    (path / "git").unlink()
    stand_in(path, "git", ":")
    stand_in(path, "gcloud", GCLOUD)
    (path / "states").write_text("\n".join(states.split()) + "\n")
    (path / "codes").write_text("\n".join(codes.split()) + "\n")
    done = launch(path, QUEUED, "--poll-seconds=0", *more, cwd=path)
    return done.returncode, (path / "calls").read_text().split(), done.stderr


def test_a_run_whose_chips_are_taken_is_asked_for_again_until_it_is_done(path):
    states = "GONE WAITING_FOR_RESOURCES ACTIVE SUSPENDED GONE ACTIVE ACTIVE"
    code, calls, said = queue_run(path, states, "75 255 0")
    # granted and started; 75, and the chips are gone: deleted, asked for, started; the connection breaks; to the end
    start = ["describe", "scp", "ssh", "ssh"]
    before = ["describe", "create", "describe", *start]
    again = ["describe", "delete", "describe", "create", *start]
    assert (code, calls) == (0, [*before, *again, *start, "delete"]), said


@pytest.mark.parametrize("ends", ENDS[1:6])
def test_a_run_that_cannot_go_on_ends_and_its_chips_stay(ends, path):
    code, calls, said = queue_run(path, "ACTIVE ACTIVE", str(ends))
    assert code == ends
    assert calls == ["describe", "scp", "ssh", "ssh", "describe"]
    assert f"exit code {ends}, starting again would not help" in said
    assert "gcloud compute tpus queued-resources delete run1" in said


def test_hosts_that_do_not_answer_yet_are_asked_again(path):
    (path / "deaf").touch()
    (path / "rm").symlink_to(shutil.which("rm"))
    code, calls, said = queue_run(path, "ACTIVE ACTIVE", "0")
    assert (code, calls) == (0, ["describe", "scp", "describe", "scp", "ssh", "ssh", "delete"]), said


def test_starting_again_has_an_end(path):
    code, calls, said = queue_run(path, "ACTIVE " * 9, "76 76 76 76", "--max-restarts=2")
    assert code == 2
    assert calls.count("scp") == 3
    assert "started 3 times, the last exit code was 76" in said


def test_xpk_in_a_dry_run(path):
    (words,) = commands(dry(path, XPK, "--num-slices=4", "--", *OPTIONS))
    assert words[:3] == ["xpk", "workload", "create"]
    wanted = {"--workload": "run1", "--cluster": "c", "--tpu-type": "v5litepod-256", "--num-slices": "4"}
    wanted |= {"--docker-image": "r/ssu:1", "--restart-on-exit-codes": "75,76", "--max-restarts": "100"}
    assert flags(words).items() >= wanted.items()
    told = shlex.split(flags(words)["--command"])
    assert told[0] == "exec"
    is_understood(told[1:])
    done = launch(path, XPK.replace("/data/run1", "gs://b/run1"), "--dry-run")
    assert done.returncode == 2
    assert "xpk storage attach" in done.stderr


def manifest(text: str) -> dict:
    first, rest = text.split("\n", 1)
    assert first.startswith("kubectl ")
    assert shlex.split(first.partition(" <<")[0])[-3:] == ["apply", "--filename", "-"]
    assert "@" not in rest
    return yaml.safe_load(rest.removesuffix("INPUT\n"))


def test_the_jobset_has_a_job_a_slice_and_a_pod_a_host(path):
    jobset = manifest(dry(path, JOBSET, "--num-slices=2", "--context=k", "--", *OPTIONS))
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (slices,) = jobset["spec"]["replicatedJobs"]
    job = slices["template"]["spec"]
    assert (slices["replicas"], job["parallelism"], job["completions"]) == (2, 64, 64)
    pod = job["template"]["spec"]
    labels = {"gke-tpu-accelerator": "tpu-v5-lite-podslice", "gke-tpu-topology": "16x16", "gke-spot": "true"}
    assert pod["nodeSelector"] == {f"cloud.google.com/{key}": value for key, value in labels.items()}
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert container["command"][container["command"].index("--workdir") + 1] == "/mnt/bucket/runs/1"
    is_understood(container["command"])
    assert container["volumeMounts"] == [{"name": "work", "mountPath": "/mnt/bucket"}]
    assert pod["volumes"][0]["csi"]["volumeAttributes"]["bucketName"] == "bucket"
    assert job["template"]["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}


def test_the_jobset_fails_for_what_starting_again_does_not_help_and_restarts_for_the_rest(path):
    spec = manifest(dry(path, JOBSET))["spec"]
    (rule,) = spec["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    assert spec["failurePolicy"]["maxRestarts"] == 100
    job = spec["replicatedJobs"][0]["template"]["spec"]
    assert (job["backoffLimit"], job["template"]["spec"]["restartPolicy"]) == (0, "Never")
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {"containerName": "ssu", "operator": "In", "values": ENDS}


def test_the_jobset_on_demand_with_a_claimed_volume(path):
    line = JOBSET.replace("gs://bucket/runs/1", "/shared/runs/1").replace("v5e:16x16", "v5p:4x4x4")
    jobset = manifest(dry(path, line, "--claim=disk", "--on-demand"))
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    assert job["parallelism"] == 16
    assert "metadata" not in job["template"]
    assert "tolerations" not in pod
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-accelerator"] == "tpu-v5p-slice"
    assert len(pod["nodeSelector"]) == 2
    assert pod["volumes"] == [{"name": "work", "persistentVolumeClaim": {"claimName": "disk"}}]
    assert pod["containers"][0]["volumeMounts"] == [{"name": "work", "mountPath": "/shared"}]
    for wrong in (line, line.replace("4x4x4", "4x4"), JOBSET.replace("16x16", "1x3"), JOBSET + " --claim disk"):
        assert launch(path, wrong, "--dry-run").returncode == 2


def batch_of(text: str) -> tuple[list[str], str]:
    folder, prepare, rest = text.split("\n", 2)
    assert shlex.split(folder) == ["mkdir", "-p", "/scratch/run1"]
    assert shlex.split(prepare)[-1] in ("cuda12", "cuda13")
    first, batch = rest.split("\n", 1)
    return shlex.split(first.partition(" <<")[0]), batch.removesuffix("INPUT\n")


def test_slurm_has_a_process_a_gpu_and_saves_ahead_of_the_limit(path):
    words, batch = batch_of(dry(path, SLURM, "--partition", "gpu", "--extra=cuda13", "--", *OPTIONS))
    assert words[0] == "sbatch"
    wanted = {"--nodes": "2", "--ntasks-per-node": "8", "--gpus-per-node": "8", "--signal": "TERM@300"}
    wanted |= {"--requeue": "", "--open-mode": "append", "--time": "60", "--partition": "gpu"}
    assert flags(words).items() >= wanted.items()
    assert not {"--account", "--qos"} & set(flags(words))
    (line,) = (line for line in batch.splitlines() if line.startswith("srun "))
    words = shlex.split(line)
    assert flags(words)["--cpus-per-task"] == "8"
    is_understood(words[next(i for i, word in enumerate(words) if word.endswith("/ssu")) :])


@pytest.mark.parametrize(("code", "restarts", "is_put_back"), [
    *((code, 0, True) for code in (75, 76, 134, 137)), *((code, 0, False) for code in (0, *ENDS)), (75, 99, True),
    (75, 100, False),
])  # fmt: skip
def test_slurm_puts_back_what_starting_again_helps(code, restarts, is_put_back, path):
    _, batch = batch_of(dry(path, SLURM))
    stand_in(path, "srun", f"exit {code}")
    stand_in(path, "scontrol", 'echo "$@" > put_back')
    environment = {"PATH": str(path), "SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": str(restarts)}
    done = subprocess.run(["bash"], input=batch, env=environment, cwd=path, text=True, capture_output=True, check=False)
    assert done.returncode == (0 if is_put_back else code)
    assert (path / "put_back").exists() == is_put_back
    if is_put_back:
        assert (path / "put_back").read_text() == "requeue 12\n"


def test_what_is_applied_is_what_a_dry_run_prints(path):
    stand_in(path, "kubectl", 'echo "$@" > arguments; cat > applied')
    done = launch(path, JOBSET, cwd=path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (path / "arguments").read_text() == "apply --filename -\n"
    assert yaml.safe_load((path / "applied").read_text()) == manifest(dry(path, JOBSET))


def test_the_commands_of_the_page_on_scaling_are_understood(path):
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8").replace("\\\n", "")
    told = [line.strip() for line in page.splitlines() if line.startswith("    launch/")]
    scripts = {line.split()[0].removeprefix("launch/") for line in told}
    assert scripts == {line.split()[0] for line in LINES} | {"local_multiprocess.sh"}
    for line in told:
        if "local_multiprocess" not in line:
            assert launch(path, line.removeprefix("launch/")).returncode == 0, line
