# The Nextcloud Talk bot as a NixOS module, with the options of nextcloud-opencode-bot: only the import changes, and `package`
# names this program. It needs neither Podman nor a Matrix account.
#
#   imports = [ ./talk.nix ];
#   services.nextcloud-opencode-bot = {
#     enable = true;
#     package = pkgs.matrix-agent;
#     nextcloudUrl = "https://cloud.example.com";
#     botSecretFile = "/run/secrets/talk-bot";
#     modelBaseUrl = "http://halo.example:8000/v1";
#   };
{
  config,
  lib,
  pkgs,
  ...
}:

with lib;

let
  cfg = config.services.nextcloud-opencode-bot;

  # A value as the file has it: in double quotes, in which `\n` begins a line.
  quoted =
    value: "\"" + replaceStrings [ "\\" "\"" "\n" "\t" ] [ "\\\\" "\\\"" "\\n" "\\t" ] (toString value) + "\"";

  settings = {
    BOT_HOST = cfg.host;
    BOT_PORT = cfg.port;
    NEXTCLOUD_URL = cfg.nextcloudUrl;
    MODEL_BASE_URL = cfg.modelBaseUrl;
    MODEL_NAME = cfg.model;
    BOT_NAME = cfg.botName;
    ALLOWED_USERS = concatStringsSep "," cfg.allowedUsers;
    CONTEXT_MESSAGES = cfg.contextMessages;
    TIMEOUT = cfg.timeout;
    SYSTEM_PROMPT = if cfg.systemPrompt == null then "" else cfg.systemPrompt;
    DIRECT_CONVERSATIONS = concatStringsSep "," cfg.directConversations;
  };

  # Everybody may read it: the secret comes as a credential.
  settingsFile = pkgs.writeText "nextcloud-talk.env" (
    concatStrings (mapAttrsToList (name: value: "${name} = ${quoted value}\n") settings)
  );
in
{
  options.services.nextcloud-opencode-bot = {
    enable = mkEnableOption "Nextcloud Talk OpenCode Bot";

    package = mkOption {
      type = types.package;
      default = pkgs.matrix-agent;
      defaultText = literalExpression "pkgs.matrix-agent";
      description = "Package with bin/matrix-agent";
    };

    port = mkOption {
      type = types.port;
      default = 8086;
      description = "Port for the webhook listener";
    };

    host = mkOption {
      type = types.str;
      default = "127.0.0.1";
      description = "Host to bind to";
    };

    nextcloudUrl = mkOption {
      type = types.str;
      example = "https://cloud.example.com";
      description = "Base URL of your Nextcloud instance";
    };

    botSecretFile = mkOption {
      type = types.path;
      description = "Path to file containing the bot secret (shared with Nextcloud)";
    };

    modelBaseUrl = mkOption {
      type = types.str;
      example = "http://halo.hoyer.tail:8000/v1";
      description = "Base URL of the OpenAI-compatible chat-completions endpoint (without trailing /chat/completions)";
    };

    model = mkOption {
      type = types.str;
      default = "halo-8000";
      description = "Model name passed in the `model` field of /chat/completions requests";
    };

    botName = mkOption {
      type = types.str;
      default = "Halo";
      description = "Bot display name (used to detect @mentions in group chats)";
    };

    allowedUsers = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Nextcloud usernames allowed to talk to the bot (empty = all)";
    };

    contextMessages = mkOption {
      type = types.int;
      default = 6;
      description = "Number of recent (user+assistant) turns to keep as context";
    };

    timeout = mkOption {
      type = types.int;
      default = 120;
      description = "Timeout in seconds for the model API call";
    };

    systemPrompt = mkOption {
      type = types.nullOr types.str;
      default = null;
      description = "Optional additional system prompt appended to the built-in one";
    };

    directConversations = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Tokens of conversations in which all that is said is meant for the bot, such as those for two";
    };
  };

  config = mkIf cfg.enable {
    systemd.services.nextcloud-opencode-bot = {
      description = "Nextcloud Talk OpenCode Bot";
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];

      environment = {
        NEXTCLOUD_TALK_FILE = "${settingsFile}";
        STATE_DIR = "/var/lib/nextcloud-opencode-bot";
        IPC_BASE_DIR = "/var/lib/nextcloud-opencode-bot/ipc";
      };

      serviceConfig = {
        Type = "simple";
        ExecStart = "${cfg.package}/bin/matrix-agent --env-file /dev/null --config-file /dev/null run";
        Restart = "always";
        RestartSec = 5;
        User = "opencode-bot";
        Group = "opencode-bot";
        NoNewPrivileges = true;
        ProtectSystem = "strict";
        ProtectHome = "read-only";
        PrivateTmp = true;
        PrivateDevices = true;
        ProtectKernelTunables = true;
        ProtectKernelModules = true;
        ProtectControlGroups = true;
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        MemoryDenyWriteExecute = false;
        LockPersonality = true;
        LoadCredential = "bot-secret:${cfg.botSecretFile}";
        StateDirectory = "nextcloud-opencode-bot";
        StateDirectoryMode = "0700";
        UMask = "0077";
      };
    };

    users.users.opencode-bot = {
      isSystemUser = true;
      group = "opencode-bot";
    };
    users.groups.opencode-bot = { };
  };
}
