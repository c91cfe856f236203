// The shell around Element's interface: what element-web's own start does, as far as a test needs it. The homeserver
// comes with the address: /?homeserver=http://127.0.0.1:8008. What would speak to anybody else is off.
import React from "react";
import ReactDOM from "react-dom";
import BasePlatform from "matrix-react-sdk/src/BasePlatform";
import { setLanguage } from "matrix-react-sdk/src/languageHandler";
import PlatformPeg from "matrix-react-sdk/src/PlatformPeg";
import SdkConfig from "matrix-react-sdk/src/SdkConfig";
import { setTheme } from "matrix-react-sdk/src/theme";
import "what-input";

const homeserver = new URLSearchParams(location.search).get("homeserver");
const config = {
  brand: "Element",
  default_theme: "light",
  validated_server_config: {
    hsUrl: homeserver,
    hsName: new URL(homeserver).host,
    hsNameIsDifferent: false,
    isUrl: "",
    isDefault: true,
    isNameResolvable: false,
    warning: null,
  },
  disable_guests: true,
  disable_custom_urls: true,
  disable_3pid_login: true,
  integrations_ui_url: "",
  integrations_rest_url: "",
  features: { feature_release_announcement: false },
  setting_defaults: {
    "pseudonymousAnalyticsOptIn": false,
    "UIFeature.feedback": false,
    "UIFeature.identityServer": false,
    "FTUE.userOnboardingButton": false,
    "use_system_theme": false,
  },
};

class Platform extends BasePlatform {
  getHumanReadableName = () => "Test Platform";
  getDefaultDeviceDisplayName = () => "Element in a test";
  getConfig = async () => config;
  getAppVersion = async () => "test";
  requestNotificationPermission = async () => "denied";
  supportsNotifications = () => false;
  reload = () => location.reload();
}

let chat;
const screen = () => location.hash.replace(/^#\/?/, "").split("?")[0];

async function start() {
  // Its list of known browsers ends with the year it was made in.
  localStorage.setItem("mx_accepts_unsupported_browser", "true");
  PlatformPeg.set(new Platform());
  SdkConfig.put(config);
  await Promise.all([setLanguage(["en"]), setTheme("light")]);
  // Parts of it read the configuration while they load.
  const [{ default: MatrixChat }, { default: createRoom }] = await Promise.all([
    import("matrix-react-sdk/src/components/structures/MatrixChat"),
    import("matrix-react-sdk/src/createRoom"),
  ]);
  // The address follows the screen, and the screen the address.
  let shown;
  window.addEventListener("hashchange", () => {
    if (screen() !== shown) chat.showScreen(screen(), {});
  });
  chat = ReactDOM.render(
    React.createElement(MatrixChat, {
      config,
      enableGuest: false,
      realQueryParams: {},
      startingFragmentQueryParams: {},
      initialScreenAfterLogin: { screen: screen() || "login" },
      defaultDeviceDisplayName: "Element in a test",
      onTokenLoginCompleted: () => {},
      onNewScreen: (name, replace) => {
        shown = name;
        if (replace) location.replace(`#/${name}`);
        else location.assign(`#/${name}`);
      },
    }),
    document.getElementById("matrixchat"),
  );
  window.matrixChat = chat;
  // For session.mjs: what its dialog for a new room calls.
  window.createRoom = createRoom;
}

start().catch((error) => {
  document.body.textContent = `Element did not start: ${error?.stack ?? error}`;
});
