// SPDX-License-Identifier: GPL-2.0-or-later
// Scripts that complete the words of vitastor-cli in bash and zsh. Commands and options are printed into them; names of
// images, pools and OSDs are asked for while completing, by `vitastor-cli completion images` and so on.

import { CATALOG, type CatalogEntry } from './catalog.js';
import { FLAGS, RULES } from './rules.js';

export const SHELLS = ['bash', 'zsh'] as const;
export type Shell = (typeof SHELLS)[number];

const GLOBAL_OPTIONS = ['json', 'help', 'config_path', 'etcd_address', 'etcd_prefix', 'progress', 'color', 'no_color', 'iodepth', 'parallel_osds'];
/** Options whose values are names. */
const NAME_OPTIONS = [['--pool|-p', 'pools'], ['--parent|--from|--to', 'images']] as const;
/** Given on the command line, they say which cluster the names are of. */
const ACCESS_OPTIONS = ['config_path', 'etcd_address', 'etcd_prefix'];
/** Nobody waits longer for a name. */
const QUIET = '--etcd_slow_timeout 1000 --max_etcd_attempts 1 2>/dev/null';

interface CompletedCommand {
  names: string[];
  summary: string;
  /** Space-separated, with dashes. */
  options: string;
  /** images, pools or osds: asked for. An array: these words. */
  takes: CatalogEntry['takes'];
  files: boolean;
  assigns: CatalogEntry['assigns'];
}

const dashed = (names: readonly string[]): string => names.map((name) => `--${name}`).join(' ');

async function completedCommands(): Promise<CompletedCommand[]> {
  return Promise.all(CATALOG.map(async (entry) => {
    const { default: command } = await entry.load();
    const own = Object.entries(command.flags).filter(([, flag]) => flag.hidden !== true).map(([name]) => name.replace(/-/g, '_'));
    return { names: [entry.name, ...entry.aliases], summary: entry.summary, options: dashed(own), takes: entry.takes, files: entry.files === true, assigns: entry.assigns };
  }));
}

export async function completionScript(shell: Shell): Promise<string> {
  const commands = await completedCommands();
  return shell === 'bash' ? bashScript(commands) : zshScript(commands);
}

/** `case` patterns: options after which a word is no value, and those that say which cluster. */
const short = Object.entries(RULES.short ?? {});
const NO_VALUE = [...FLAGS.map((name) => `--${name}`), ...short.filter(([, name]) => FLAGS.includes(name)).map(([c]) => `-${c}`)];
const WITH_VALUE = short.filter(([, name]) => !FLAGS.includes(name)).map(([c]) => `-${c}`);

/** Reads the words before the cursor into cmd, access (options that say which cluster) and prev. Both shells understand it. */
const SCAN = `    case "\${word//-/_}" in
      ${ACCESS_OPTIONS.map((name) => `__${name}`).join('|')}) takes_value=access ;;
      ${ACCESS_OPTIONS.map((name) => `__${name}=*`).join('|')}) access+=("$word"); takes_value= ;;
      __*=*|${NO_VALUE.map((name) => name.replace(/-/g, '_')).join('|')}) takes_value= ;;
      __*|${WITH_VALUE.map((name) => name.replace(/-/g, '_')).join('|')}) takes_value=other ;;
      *) if [[ $takes_value == access ]]; then access+=("$prev" "$word")
         elif [[ -z $takes_value && -z $cmd ]]; then cmd=$word
         fi
         takes_value= ;;
    esac
    prev=$word`;

const askFor = (what: string): string => `"$program" completion ${what} "\${access[@]}" ${QUIET}`;

function wordsOf(takes: CompletedCommand['takes']): string {
  if (takes === undefined) return '';
  return typeof takes === 'string' ? `kind=${takes}` : `kind=words; list='${takes.join(' ')}'`;
}

function commandCases(commands: readonly CompletedCommand[]): string {
  return commands.map(({ names, options, takes, files, assigns }) => {
    const words = assigns ? 'kind=assign' : `${wordsOf(takes)}${files ? '; files=1' : ''}`;
    return `    ${names.join('|')}) opts='${options}'${words === '' ? '' : `; ${words}`} ;;`;
  }).join('\n');
}

const valueCases = NAME_OPTIONS.map(([option, kind]) => `    ${option}) kind=${kind}; opts= ;;`).join('\n');

/** Of the one command whose arguments are key=value. */
function assigned(commands: readonly CompletedCommand[]): { images: string; files: string; words: string } {
  const { images = [], files = [], others = [] } = commands.find((command) => command.assigns)?.assigns ?? {};
  const pattern = (keys: readonly string[]): string => keys.map((key) => `${key}=*`).join('|');
  return { images: pattern(images), files: pattern(files), words: [...files, ...images, ...others].map((key) => `${key}=`).join(' ') };
}

function bashScript(commands: readonly CompletedCommand[]): string {
  return `# Completion of vitastor-cli for bash. Use it by
#   source <(vitastor-cli completion bash)
# or store it as /etc/bash_completion.d/vitastor-cli.
_vitastor_cli() {
  local line=\${COMP_LINE:0:COMP_POINT} cur= prev= cmd= takes_value= word kind= list= opts= files= i
  local -a words access=()
  read -ra words <<< "$line"
  local program=\${words[0]/#\\~/$HOME}
  [[ $line == *[[:space:]] ]] || { cur=\${words[\${#words[@]}-1]}; unset "words[\${#words[@]}-1]"; }
  for ((i = 1; i < \${#words[@]}; i++)); do
    word=\${words[i]}
${SCAN}
  done
  case $cmd in
    '') list='${commands.flatMap((c) => c.names).join(' ')}'; kind=words ;;
${commandCases(commands)}
  esac
  opts+=' ${dashed(GLOBAL_OPTIONS)}'
  if [[ -n $takes_value ]]; then
    kind=; opts=; files=
    case $prev in
${valueCases}
    esac
  fi
  COMPREPLY=()
  if [[ $kind == assign ]]; then
    case $cur in
      ${assigned(commands).images}) kind=images; cur=\${cur#*=} ;;
      ${assigned(commands).files}) kind=files; cur=\${cur#*=} ;;
      *=*) kind=none ;;
      *) kind=words; list='${assigned(commands).words}'; compopt -o nospace 2>/dev/null ;;
    esac
  fi
  if [[ $cur == -* ]]; then
    word=\${cur#--}
    [[ $cur == --* ]] && cur=--\${word//-/_}
    COMPREPLY=($(compgen -W "$opts" -- "$cur"))
    return
  fi
  case $kind in
    words) COMPREPLY=($(compgen -W "$list" -- "$cur")) ;;
    images|pools|osds)
      while IFS= read -r word; do
        [[ $word == "$cur"* ]] && COMPREPLY+=("$(printf %q "$word")")
      done < <(${askFor('"$kind"')})
      [[ -n $files ]] && while IFS= read -r word; do COMPREPLY+=("$(printf %q "$word")"); done < <(compgen -f -- "$cur") ;;
    files) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    *) [[ -n $takes_value ]] && { compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); } ;;
  esac
  # bash takes these characters for the ends of words.
  local part=\${cur%"\${cur##*[@:=]}"}
  [[ -n $part ]] && COMPREPLY=("\${COMPREPLY[@]#"$part"}")
}
complete -F _vitastor_cli vitastor-cli
`;
}

function zshScript(commands: readonly CompletedCommand[]): string {
  const described = commands.flatMap((c) => c.names.map((name) => `    '${name}:${c.summary.replace(/'/g, `'\\''`).replace(/:/g, '\\:')}'`));
  return `#compdef vitastor-cli
# Completion of vitastor-cli for zsh. Use it by
#   source <(vitastor-cli completion zsh)
# or store it as _vitastor-cli in a directory of $fpath.
_vitastor_cli() {
  local prev= cmd= takes_value= word kind= list= opts= files= program=\${words[1]} i
  local -a access names
  local -a cmds=(
${described.join('\n')}
  )
  for ((i = 2; i < CURRENT; i++)); do
    word=\${words[i]}
${SCAN}
  done
  case $cmd in
    '') kind=commands ;;
${commandCases(commands)}
  esac
  opts+=' ${dashed(GLOBAL_OPTIONS)}'
  if [[ -n $takes_value ]]; then
    kind=; opts=; files=
    case $prev in
${valueCases}
    esac
  fi
  if [[ \${words[CURRENT]} == -* ]]; then
    compadd -- \${=opts}
    return
  fi
  if [[ $kind == assign ]]; then
    case \${words[CURRENT]} in
      ${assigned(commands).images}) compset -P '*='; kind=images ;;
      ${assigned(commands).files}) compset -P '*='; _files; return ;;
      *=*) return ;;
      *) compadd -S '' -- ${assigned(commands).words}; return ;;
    esac
  fi
  [[ -n $files ]] && _files
  case $kind in
    commands) _describe -t commands command cmds ;;
    words) compadd -- \${=list} ;;
    images|pools|osds) names=("\${(@f)$(${askFor('$kind')})}"); names=(\${names:#}); compadd -a names ;;
    *) [[ -n $takes_value ]] && _files ;;
  esac
}
if [[ $funcstack[1] == _vitastor-cli ]]; then _vitastor_cli "$@"; else compdef _vitastor_cli vitastor-cli; fi
`;
}
