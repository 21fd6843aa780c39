#!/usr/bin/env bash
# Checks the documents: links lead to files and headings that exist; configurations, scripts, commands of
# rep and long options that they name exist; pages stay short. Prints every offence as FILE:LINE: reason.
#
# usage: scripts/check_docs.sh [--rep PATH] [PAGE.md]...
#
#   --rep PATH   the executable whose --help says which options there are; without it, options of rep
#                are not checked
#   PAGE.md      pages to check (default: README.md, CONTRIBUTING.md, CHANGELOG.md, docs/, results/ and
#                datasets/README.md, and the man page, which describes every option of every command)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

rep='' pages=()
while (($# > 0)); do
  case $1 in
    --rep) rep=${2:?"--rep needs a file"}; shift ;;
    -h | --help) print_help; exit 0 ;;
    -*) echo "error: unknown option '$1'; see scripts/check_docs.sh --help" >&2; exit 2 ;;
    *) pages+=("$1") ;;
  esac
  shift
done
man=''
((${#pages[@]} > 0)) || man=docs/rep.1
[[ -z $man ]] ||
  pages=(README.md CONTRIBUTING.md CHANGELOG.md docs/*.md results/*.md datasets/README.md)
[[ -z $rep || -x $rep ]] || fail "$rep is not an executable"

# Of each page, one thing to check a line: KIND FILE LINE WORDS. Code is what is fenced or indented by
# four columns after an empty line; a line that ends with \ goes on in the next.
read -r -d '' things <<'AWK' || true
function say(kind, words) { print kind, FILENAME, FNR, words }
function links(text,   at) {
  while (match(text, /\]\([^)]+\)/)) {
    at = substr(text, RSTART + 2, RLENGTH - 3)
    text = substr(text, RSTART + RLENGTH)
    if (at !~ /^[a-z]+:/) say("link", at)
  }
}
function paths(text,   at) {
  while (match(text, /(^|[^A-Za-z0-9_.\/-])(configs|scripts|containers)\/[A-Za-z0-9_.\/-]*/)) {
    at = substr(text, RSTART, RLENGTH)
    text = substr(text, RSTART + RLENGTH)
    if (text ~ /^[*<{$]/) continue  # stands for several
    sub(/^[^A-Za-z]/, "", at)
    sub(/[.,\/]+$/, "", at)
    say("path", at)
  }
}
function command(text,   word, words, i, of) {
  sub(/ #.*/, "", text)
  gsub(/[][(){}`]/, " ", text)
  words = split(text, word, /[ \t]+/)
  of = ""
  for (i = 1; i <= words; ++i) {
    if (word[i] ~ /^([A-Za-z_$.\/]*\/)?rep$/ && word[i + 1] ~ /^[a-z]+$/) {
      of = word[++i]
      say("command", of)
    } else if (word[i] ~ /^scripts\/[a-z0-9_]+\.(sh|py)$/) {
      of = word[i]
    } else if (word[i] ~ /^(\||&&|;)$/) {
      of = ""
    } else if (of != "" && word[i] ~ /^--[a-z]/) {
      sub(/[^a-z-].*/, "", word[i])
      say("option", of " " word[i])
    }
  }
}
FNR == 1 { fenced = 0; code = 0; blank = 1; text = "" }
/^ *```/ { fenced = !fenced; next }
{
  code = fenced || ($0 ~ /^    / && (blank || code))
  blank = $0 ~ /^[ \t]*$/
  paths($0)
  if (!code) { links($0); next }
  text = text $0
  if (sub(/\\$/, "", text)) next
  command(text)
  text = ""
}
AWK

# The anchors of a page's headings, as GitHub makes them.
anchors() {
  awk '/^ *```/ { fenced = !fenced }
    !fenced && /^#+ / {
      sub(/^#+ +/, ""); $0 = tolower($0); gsub(/[^a-z0-9 _-]/, ""); gsub(/ /, "-")
      print seen[$0]++ ? $0 "-" seen[$0] - 1 : $0
    }' "$1"
}

# What --help of a command of rep, or of a script (which may hand options on to rep), says.
declare -A help
help_of() {
  local of=$1
  if [[ -z ${help[$of]:-} ]]; then
    case $of in
      scripts/quickstart.sh) help[$of]=$(cat "$of") && of=run ;;
      scripts/reproduce.sh) help[$of]=$(cat "$of") && of=sweep ;;
      scripts/*) help[$of]=$(cat "$of" 2>/dev/null || true); return ;;
    esac
    if [[ -n $rep ]]; then help[$1]+=$("$rep" "$of" --help); fi
  fi
}

found=$(awk "$things" "${pages[@]}")
status=0 options=0
offend() { echo "$1:$2: $3"; status=1; }

while read -r kind page line first second; do
  case $kind in
    link)
      file=${first%%#*}
      if [[ -z $file ]]; then file=$page; else file=$(dirname "$page")/$file; fi
      if [[ ! -e $file ]]; then
        offend "$page" "$line" "the link '$first' leads to no file"
      elif [[ $first == *#* ]] && ! grep -qxF -- "${first#*#}" < <(anchors "$file"); then
        offend "$page" "$line" "the link '$first' leads to no heading"
      fi ;;
    path) [[ -e $first ]] || offend "$page" "$line" "there is no '$first'" ;;
    command)
      [[ -e src/cli/$first.cpp ]] ||  # a file a command
        offend "$page" "$line" "rep has no command '$first'" ;;
    option)
      if [[ $first != scripts/* || $first =~ (quickstart|reproduce) ]] && [[ -z $rep ]]; then
        options=$((options + 1))
        continue
      fi
      [[ $first == scripts/* || -e src/cli/$first.cpp ]] || continue
      help_of "$first"
      grep -qE -- "(^|[^a-z-])$second([^a-z-]|\$)" <<<"${help[$first]}" ||
        offend "$page" "$line" "'$first' has no option '$second'" ;;
  esac
done <<<"$found"

for page in "${pages[@]}"; do
  case $page in
    docs/configuration.md) continue ;;  # generated: as long as there are keys
    README.md) most=130 ;;
    docs/performance.md) most=120 ;;
    docs/*.md) most=149 ;;
    *) continue ;;
  esac
  lines=$(wc -l <"$page")
  ((lines <= most)) || offend "$page" "$lines" "has $lines lines; $most are the most"
done

if [[ -n $man ]] && command -v groff >/dev/null; then
  warnings=$(groff -man -ww -z "$man" 2>&1)
  if [[ -n $warnings ]]; then echo "$warnings"; status=1; fi
fi
if [[ -n $man && -n $rep ]]; then
  while read -r command; do
    shown=$("$rep" "$command" --help | sed -n 's/^  \(-[a-z],\)\{0,1\}\(--[a-z-]*\).*/\2/p')
    written=$(awk -v of="\"rep $command" '/^\.S[SH]/ { on = index($2 " " $3 " ", of) == 1 } on' "$man" |
      sed 's/\\-/-/g' | grep -oE -- '--[a-z][a-z-]*' || true)
    while read -r option; do
      offend "$man" "rep $command" "does not describe '$option'"
    done < <(comm -23 <(sort -u <<<"$shown" | grep -vx -- --help) <(sort -u <<<"$written") | grep .)
    while read -r option; do
      offend "$man" "rep $command" "there is no '$option'"
    done < <(comm -13 <(sort -u <<<"$shown") <(sort -u <<<"$written") | grep .)
  done < <("$rep" --help | awk 'on && NF { print $1 } /^Subcommands:/ { on = 1 } on && !NF { exit }')
  while read -r method; do
    grep -qF -- "\`$method\`" README.md || offend README.md 1 "does not name the method '$method'"
    grep -qE -- "^\*\*\`([a-z]*\`, \`)*$method\`" docs/methods*.md ||
      offend docs/methods.md 1 "has no paragraph on '$method'"
  done < <("$rep" list methods | sed -n 's/^  \([a-z_0-9]*\) .*/\1/p')
fi

if ((options > 0)); then
  echo "skipped: $options options of rep, since --rep does not say where the executable is"
fi
exit "$status"
