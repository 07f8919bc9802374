#!/usr/bin/env bash
# Trains on GPUs under SLURM: one process a GPU, saved ahead of the time limit, put back into the queue where that helps.
# Submits itself. The checkout, its .venv and --workdir must lie on a file system that every node sees.
#
#   launch/slurm.sh --name run1 --nodes 4 --gpus-per-node 8 --time 1-00:00:00 --config configs/moe_64.py \
#     --workdir /scratch/run1 -- --config.data.dir=/scratch/records --config.mesh.expert=8
#
#   --name NAME               of the job
#   --nodes N                 default 1
#   --gpus-per-node N         processes of a node
#   --cpus-per-gpu N          cores of a process (default 8)
#   --time T                  limit as sbatch takes it: minutes, or days-hours:minutes:seconds
#   --config FILE.py          a file of this checkout
#   --workdir DIR             absolute; logs go there too (slurm-JOB.log)
#   --partition P --account A --qos Q     where the cluster asks for them
#   --extra E                 jax for its driver: cuda12 or cuda13 (default cuda12)
#   --grace-seconds N         SIGTERM comes so long ahead of the limit: time to save (default 300)
#   --max-restarts N          how often at most to be put back (default 100)
#   --dry-run                 prints the commands and the batch script, and runs nothing
#   -- OPTIONS                further options of ssu train
#
# Put back for 75 and 76, also when a process was killed (137, or 134: jax's own end where its peers are gone); any other
# code ends the job. A node that fails, or a preemption, puts it back by SLURM's own hand (--requeue).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"

name="" gpus_per_node="" time="" config="" workdir=""
nodes=1 cpus_per_gpu=8 partition="" account="" qos="" extra=cuda12 grace_seconds=300 max_restarts=100
read_options "name gpus_per_node time config workdir" \
  "nodes cpus_per_gpu partition account qos extra grace_seconds max_restarts" "$@"
check_name name
check_number nodes 1
check_number gpus_per_node 1
check_number cpus_per_gpu 1
check_number grace_seconds 1
check_number max_restarts 0
check_config "$config"
case "$workdir" in /*) ;; *) fail "--workdir: wanted an absolute path that every node sees, got $workdir" ;; esac
case "$extra" in cuda12 | cuda13) ;; *) fail "--extra: wanted cuda12 or cuda13, got $extra" ;; esac
need sbatch "run this on a login node of the cluster"

# jax takes SLURM_LOCALID for the one GPU of a process (jax/_src/clusters/slurm_cluster.py), so there must be a process
# a GPU, and each must see all GPUs of its node: --gpus-per-node, not --gpus-per-task.
# --signal without "B:" signals the processes, not the batch shell (slurm.schedmd.com/sbatch.html).
options=("--job-name=$name" "--nodes=$nodes" "--ntasks-per-node=$gpus_per_node" "--gpus-per-node=$gpus_per_node"
  "--cpus-per-task=$cpus_per_gpu" "--time=$time" "--signal=TERM@$grace_seconds" --requeue --open-mode=append
  "--output=$workdir/slurm-%j.log" "--chdir=$ROOT")
[ -z "$partition" ] || options+=("--partition=$partition")
[ -z "$account" ] || options+=("--account=$account")
[ -z "$qos" ] || options+=("--qos=$qos")

# srun ends with the highest exit code of all processes: 77, 78 and 79 outweigh the 75 of their peers. It no longer
# takes --cpus-per-task from the job (since Slurm 22.05).
train_with "$VENV/bin/ssu" "$config" "$workdir"
batch="#!/usr/bin/env bash
srun --kill-on-bad-exit=0 --label --cpus-per-task=$cpus_per_gpu $(quoted "${train[@]}")
code=\$?
case \$code in
  $(IFS='|' && echo "${RESTARTS[*]}|${DIED[*]}"))
    if [ \${SLURM_RESTART_COUNT:-0} -lt $max_restarts ]; then
      echo \"exit code \$code: back into the queue\"
      scontrol requeue \$SLURM_JOB_ID && exit
    fi
    ;;
esac
exit \$code"

run mkdir -p "$workdir"
run "$ROOT/launch/node.sh" "$extra"
run_with "$batch" sbatch "${options[@]}"
