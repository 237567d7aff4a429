# Sourced by the scripts beside it: packages of the distribution, fetched by the machine's own way to the network and
# unpacked, without root and without installing anything.

# The URI of each package source that apt knows, in both of its notations, the main archives only.
mirrors() {
    local file
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        [[ -f $file ]] || continue
        sed -nE 's/^[[:space:]]*deb[[:space:]]+(\[[^]]*\][[:space:]]+)?([^[:space:]]+)[[:space:]]+([^[:space:]]+).*/\2 \3/p' "$file"
        awk 'tolower($1) == "uris:" {uri = $2}
             tolower($1) == "suites:" {suite = $2}
             NF == 0 {uri = suite = ""}
             uri != "" && suite != "" {print uri, suite; uri = suite = ""}' "$file"
    done | awk '$1 !~ /^cdrom:/ && $2 !~ /security|updates|backports/ && !seen[$1]++ {print $1}'
}

# Runs apt-get with the machine's way to the network (proxies, certificates, keyrings), but with its own
# sources and state and none of the machine's hooks.
own_apt() { # WORKDIR ARGUMENT...
    local work=$1
    shift
    APT_CONFIG=$work/apt.conf apt-get -qq "$@" </dev/null
}

configure_apt() { # WORKDIR SOURCE-LINE
    local work=$1
    mkdir -p "$work"/{lists,cache/archives,parts,etc}/partial
    rmdir "$work"/parts/partial
    : >"$work/status"
    echo "$2" >"$work/sources.list"
    {
        apt-config dump | grep -E '^(Acquire|APT::Architecture|Dir::Etc::(trusted|netrc)|Dir::Bin)' || true
        cat <<CONF
Dir::Etc::main "/dev/null";
Dir::Etc::parts "$work/parts";
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "$work/parts";
Dir::State "$work";
Dir::State::lists "$work/lists";
Dir::State::status "$work/status";
Dir::Cache "$work/cache";
Acquire::Languages "none";
Acquire::Retries "3";
APT::Sandbox::User "$(id -un)";
CONF
    } >"$work/apt.conf"
}
