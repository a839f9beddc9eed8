# What each band has, as the kernel has it, and who goes when memory is short.
job() { # NAME BAND MEMORY MORE
  cat > $1.toml <<END
name = "$1"
band = "$2"
[task]
image   = "hello:1"
command = ["/hello", "--listen", ":\${PORT_http}"]
cpu     = "450m"
memory  = "$3MiB"
ports   = ["http"]
grace   = "1s"
$4
END
  covey run $1.toml --wait --timeout 60s >/dev/null || give_up "$1 does not run"
}
of() { covey task $1/0 --json | sed -n "s/.*\"$2\": *\"\{0,1\}\([a-z0-9.]*\).*/\1/p" | head -1; }
# That task's first process, and how often it was started again.
same() { echo $(of $1 pid) $(of $1 restarts); }
# Who is killed for it answers no more.
takes() {
  wget -qO /dev/null "http://127.0.0.1:$(of $1 http)/alloc?mib=$2" 2>/dev/null &
  tries=0
  while kill -0 $! 2>/dev/null; do
    tries=$((tries + 1)); [ $tries -lt 300 ] || { kill $!; break; }
    sleep 0.1
  done
}
goes() {
  tries=0
  until covey task $1/0 --json | grep -q '"cause": *"reclaimed"'; do
    tries=$((tries + 1)); [ $tries -lt 300 ] || give_up "$1 does not go"
    sleep 0.1
  done
}

job etl batch 150
job hog free 140
# Production is admitted against limits: nobody is in its way.
job web production 200 'io = { iops = 500, bandwidth = "20MiB" }'
job sum production 100 'class = "batch"'
dir_of() { echo /sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$(of $1 pid)/cgroup); }
web=$(dir_of web)
sum=$(dir_of sum)
tree=${web%/production/*}
# Once the guard has looked.
tries=0
until [ "$(cat $sum/memory.min)" != 0 ]; do
  tries=$((tries + 1)); [ $tries -lt 300 ] || give_up "nothing is kept for production"
  sleep 0.1
done
section files
for file in cpu.weight cpu.idle io.weight io.bfq.weight memory.high; do
  for band in monitoring production spare spare/batch spare/free; do echo "$band/$file $(cat $tree/$band/$file)"; done
done
echo "web/memory.low $(cat $web/memory.low)"
echo "web/io.max $(cat $web/io.max)"
echo "web/io.bfq.weight $(cat $web/io.bfq.weight)"
echo "sum/io.bfq.weight $(cat $sum/io.bfq.weight)"
section floors
for dir in $tree $tree/shims $tree/production $web $sum; do cat $dir/memory.min; done
section alarm
for fd in /proc/$agent/fd/*; do readlink $fd; done | grep -c 'covey-[0-9a-f]*/memory.pressure'

section before; same web; same sum
takes etl 143
takes hog 134
takes web 193
goes hog
takes sum 92
goes etl
section after; same web; same sum
# In their order.
section reclaimed; covey events | awk '$4 == "reclaimed" { print $3 }'
section killed; grep -w oom_kill $tree/memory.events
for name in web sum etl hog; do covey stop $name >/dev/null || give_up "$name does not stop"; done
section "bands are done"
