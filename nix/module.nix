# The whole server as a NixOS module: the unit of systemd/matrix-agent.service, line for line where the two can be the same
# (tests/docs.rs compares them), with Podman and the user ids that the rooms' sandboxes get.
#
#   imports = [ ./module.nix ];
#   services.matrix-agent = {
#     enable = true;
#     package = ...;                                        # with bin/matrix-agent
#     environmentFile = "/run/secrets/matrix-agent.env";    # LLM_API_KEY = ..., MATRIX_PASSWORD = ...
#     settings = {
#       MATRIX_HOMESERVER = "https://matrix.example.org";
#       MATRIX_USER = "@bot:example.org";
#       MATRIX_ADMIN_USER = "@me:example.org";
#     };
#   };
#
# The sandboxes' image is built once, as root in a clone: scripts/build-image.sh.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  inherit (lib)
    mkEnableOption
    mkIf
    mkOption
    types
    literalExpression
    ;
  cfg = config.services.matrix-agent;

  # As the program reads it from the environment.
  text =
    value:
    if builtins.isBool value then
      lib.boolToString value
    else if builtins.isList value then
      lib.concatStringsSep "," value
    else
      toString value;

  secrets = lib.filter (
    name: builtins.match "(.*_)?(API_KEY|PASSWORD|SECRET|TOKEN)" name != null
  ) (lib.attrNames cfg.settings);

  # A runtime that is chosen needs a Podman of its own (docs/runtimes.md).
  runtime = if cfg.settings ? PODMAN_SOCKET then null else cfg.settings.SANDBOX_RUNTIME or null;
  podmanSocket = "/run/matrix-agent-podman/podman.sock";
  runtimePackages = {
    runsc = pkgs.gvisor;
    crun = pkgs.crun;
    runc = pkgs.runc;
  };
  # With the flags of scripts/gvisor/runsc, and its name, by which Podman knows it.
  runsc = pkgs.writeTextFile {
    name = "runsc";
    executable = true;
    destination = "/bin/runsc";
    text = lib.replaceStrings [ "exec runsc" ] [ "exec ${pkgs.gvisor}/bin/runsc" ] (
      builtins.readFile ../scripts/gvisor/runsc
    );
  };

  configFile = (pkgs.formats.toml { }).generate "matrix-agent.toml" cfg.structure;
in
{
  options.services.matrix-agent = {
    enable = mkEnableOption "matrix-agent, a coding agent in Matrix rooms";

    package = mkOption {
      type = types.package;
      default = pkgs.matrix-agent;
      defaultText = literalExpression "pkgs.matrix-agent";
      description = "Package with bin/matrix-agent";
    };

    settings = mkOption {
      type = types.attrsOf (
        types.oneOf [
          types.bool
          types.int
          types.str
          (types.listOf types.str)
        ]
      );
      default = { };
      example = {
        LLM_MODEL = "openrouter/anthropic/claude-sonnet-4";
        ALLOWED_USERS = [ "@*:example.org" ];
      };
      description = "Settings by the names of .env.example. Everybody on the machine can read them: no secrets";
    };

    environmentFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = "/run/secrets/matrix-agent.env";
      description = "File of `KEY = value` lines with the secrets, which systemd hands to the server alone";
    };

    credentials = mkOption {
      type = types.attrsOf types.path;
      default = { };
      example = {
        github-app = "/run/secrets/github-app.pem";
      };
      description = "Further secret files; the server finds them as /run/credentials/matrix-agent.service/NAME, which settings such as GITHUB_APP_KEY then say";
    };

    structure = mkOption {
      type = types.attrs;
      default = { };
      example = {
        accounts.family.user = "@bot:family.example";
      };
      description = "What stands in matrix-agent.toml: further accounts, agents, prices";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = secrets == [ ];
        message = "services.matrix-agent.settings are readable by everybody: ${lib.concatStringsSep ", " secrets} belongs into environmentFile";
      }
    ];

    virtualisation.podman.enable = true;

    # The user ids of the sandboxes: each room has a range of its own.
    users.users.containers = {
      isSystemUser = true;
      group = "containers";
      subUidRanges = [
        {
          startUid = 2147483647;
          count = 2147483648;
        }
      ];
      subGidRanges = [
        {
          startGid = 2147483647;
          count = 2147483648;
        }
      ];
    };
    users.groups.containers = { };

    environment.systemPackages = [ cfg.package ];

    systemd.services.matrix-agent = {
      description = "matrix-agent: a coding agent in Matrix rooms";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      requires = [ "podman.socket" ];
      after = [
        "network-online.target"
        "podman.socket"
      ];
      startLimitIntervalSec = 600;
      startLimitBurst = 10;

      # The images of the rooms' files are made by these; ssh reaches inference servers.
      path = [
        pkgs.e2fsprogs
        pkgs.openssh
        pkgs.podman
      ]
      ++ lib.optional (runtime != null) runtimePackages.${runtime};

      environment = {
        STATE_DIR = "/var/lib/matrix-agent";
        IPC_BASE_DIR = "/run/matrix-agent/ipc";
      }
      // lib.optionalAttrs (runtime != null) { PODMAN_SOCKET = podmanSocket; }
      // lib.mapAttrs (_: text) cfg.settings;

      # The reasons stand in systemd/matrix-agent.service.
      serviceConfig = {
        Type = "notify";
        NotifyAccess = "main";
        ExecStart = "${cfg.package}/bin/matrix-agent --env-file ${
          if cfg.environmentFile == null then "/dev/null" else "\${CREDENTIALS_DIRECTORY}/env"
        } --config-file ${configFile} run";
        LoadCredential =
          lib.optional (cfg.environmentFile != null) "env:${cfg.environmentFile}"
          ++ lib.mapAttrsToList (name: file: "${name}:${file}") cfg.credentials;
        StateDirectory = "matrix-agent";
        StateDirectoryMode = "0700";
        RuntimeDirectory = "matrix-agent";
        RuntimeDirectoryMode = "0700";
        RuntimeDirectoryPreserve = "yes";
        UMask = "0077";
        Restart = "on-failure";
        RestartPreventExitStatus = "2";
        RestartSec = "2";
        TimeoutStartSec = "120";
        TimeoutStopSec = "30";
        WatchdogSec = "60";
        LimitNOFILE = "65536";
        LimitCORE = "0";
        MemoryMax = "1G";
        CapabilityBoundingSet = "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_SYS_PTRACE CAP_CHECKPOINT_RESTORE";
        NoNewPrivileges = "yes";
        ProtectSystem = "strict";
        ReadWritePaths = "-/var/lib/containers/storage";
        ProtectHome = "yes";
        PrivateTmp = "yes";
        PrivateDevices = "yes";
        ProtectClock = "yes";
        ProtectHostname = "yes";
        ProtectControlGroups = "yes";
        ProtectKernelLogs = "yes";
        ProtectKernelModules = "yes";
        ProtectKernelTunables = "yes";
        RestrictRealtime = "yes";
        RestrictSUIDSGID = "yes";
        RestrictNamespaces = "yes";
        LockPersonality = "yes";
        MemoryDenyWriteExecute = "yes";
        KeyringMode = "private";
        RestrictAddressFamilies = "AF_UNIX AF_INET AF_INET6 AF_NETLINK";
        SystemCallArchitectures = "native";
        SystemCallFilter = "@system-service";
        SystemCallErrorNumber = "EPERM";
      };
    };

    systemd.sockets.matrix-agent-podman = mkIf (runtime != null) {
      description = "Podman with the runtime of matrix-agent's sandboxes";
      wantedBy = [ "sockets.target" ];
      listenStreams = [ podmanSocket ];
      socketConfig = {
        SocketMode = "0600";
        DirectoryMode = "0700";
      };
    };

    systemd.services.matrix-agent-podman = mkIf (runtime != null) {
      description = "Podman with the runtime of matrix-agent's sandboxes";
      requires = [ "matrix-agent-podman.socket" ];
      after = [ "matrix-agent-podman.socket" ];
      serviceConfig = {
        Type = "exec";
        ExecStart = "${config.virtualisation.podman.package}/bin/podman --runtime ${
          if runtime == "runsc" then "${runsc}/bin/runsc" else lib.getExe runtimePackages.${runtime}
        } system service";
        KillMode = "process";
        Delegate = "yes";
      };
    };
  };
}
