//! placeholder
#[allow(dead_code)]
fn futures_are_send(store: &patchbay_store::Store, table: &patchbay_store::PluginTable, d: patchbay_plugin::configuration::ConfigurationDraft) {
    fn is_send<T: Send>(_: T) {}
    is_send(store.create_configuration(table, d.clone(), "x"));
    is_send(store.update_configuration(table, uuid::Uuid::nil(), None, d, "x"));
    is_send(store.delete_configuration(uuid::Uuid::nil(), None, "x"));
    is_send(store.configuration(uuid::Uuid::nil()));
    is_send(store.data_product(uuid::Uuid::nil()));
    is_send(store.health());
}
