//! What the OpenAPI document says about operations alike: errors, paging, conditions, how to authenticate.
//!
//! The document is made from the handlers, so it knows every route, and knows nothing of the plugins installed.

use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::schema::{KnownFormat, Schema, SchemaFormat};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi as Document, Ref, RefOr};
use utoipa::{IntoParams, OpenApi, ToResponse};

use crate::error::Envelope;
use crate::routes;

macro_rules! error_responses {
    ($($(#[doc = $doc:literal])* $name:ident $text:literal;)*) => {$(
        $(#[doc = $doc])*
        #[derive(ToResponse)]
        #[response(description = $text)]
        #[expect(dead_code, reason = "a response of the document")]
        pub(crate) struct $name(Envelope);
    )*};
}

error_responses! {
    /// 400
    BadRequest "The request lacks something, or does not parse";
    /// 401
    Unauthenticated "No token, or a wrong one";
    /// 403
    Forbidden "Not served to this host, origin or proxy";
    /// 404
    NotFound "What the request names does not exist; `detail` says what";
    /// 409
    Conflict "It contradicts what is stored; `detail` says how";
    /// 412
    Stale "It was made for another revision";
    /// 413
    TooLarge "The body is too large";
    /// 415
    NotJson "The body is not JSON";
    /// 422
    Unprocessable "The content is wrong; `detail` lists what, where and why";
    /// 500
    Internal "Something went wrong; the log says more under the correlation id";
    /// 501
    NotImplemented "The plugin does not do this";
    /// 503
    Unavailable "Not available at the moment; `Retry-After` says when to try again";
    /// 504
    TimedOut "It took too long";
}

/// How a list is paged.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "parameters of the document; they are read by their names"
)]
pub(crate) struct Paging {
    /// How many items the page has at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u16>,
    /// Where the page begins: `next_cursor` of the page before.
    cursor: Option<String>,
}

/// On which revision a write is made.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(
    dead_code,
    reason = "parameters of the document; they are read by their names"
)]
pub(crate) struct IfMatch {
    /// The ETag of the revision that is to be changed; 412 when there is a newer one.
    #[param(rename = "If-Match")]
    if_match: Option<String>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Patchbay",
        description = "A server that learns new kinds of data output from plugins written in Lua",
    ),
    tags(
        (name = "plugins", description = "Plugins, their forms and links"),
        (name = "configurations", description = "Stored configurations"),
        (name = "catalogue", description = "Platforms, their services, and environments"),
        (name = "data products", description = "The owners of configurations"),
        (name = "operations", description = "Health and figures"),
    ),
    components(
        schemas(Envelope),
        responses(
            BadRequest, Unauthenticated, Forbidden, NotFound, Conflict, Stale, TooLarge, NotJson, Unprocessable,
            Internal, NotImplemented, Unavailable, TimedOut,
        ),
    ),
)]
struct Base;

/// What the document starts from.
pub(crate) fn base() -> Document {
    Base::openapi()
}

/// The OpenAPI document of the server.
pub fn document() -> Document {
    let mut document = routes::router().into_openapi();
    document.security = Some(vec![
        utoipa::openapi::SecurityRequirement::new::<_, [&str; 0], _>("bearer", []),
        utoipa::openapi::SecurityRequirement::new::<_, [&str; 0], _>("key", []),
        utoipa::openapi::SecurityRequirement::default(),
    ]);
    if let Some(components) = &mut document.components {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let key = ApiKey::Header(ApiKeyValue::new("x-key"));
        components.add_security_scheme("key", SecurityScheme::ApiKey(key));
    }
    for (path, item) in &mut document.paths.paths {
        let is_open = matches!(path.as_str(), "/healthz" | "/readyz");
        let reads = item.get.iter_mut().map(|read| (read, false));
        let writes = [
            &mut item.post,
            &mut item.put,
            &mut item.patch,
            &mut item.delete,
        ];
        let writes = writes.into_iter().flatten().map(|write| (write, true));
        for (operation, is_write) in reads.chain(writes) {
            add_common(operation, is_open, is_write);
        }
    }
    document
}

/// The answers that every operation may give, and those that follow from what it takes: a path that names something that
/// does not exist, an id that is none, a query or a body that is wrong.
fn add_common(operation: &mut Operation, is_open: bool, is_write: bool) {
    let parameters = || {
        let all = operation.parameters.iter().flatten();
        all.filter_map(|parameter| match parameter {
            RefOr::T(parameter) => Some(parameter),
            RefOr::Ref(_) => None,
        })
    };
    let names_something = parameters().any(|it| it.parameter_in == ParameterIn::Path);
    let is_checked = operation.request_body.is_some()
        || parameters().any(|it| it.parameter_in == ParameterIn::Query || is_id(it));
    let mut add = |status: &str, name: &str| {
        operation
            .responses
            .responses
            .entry(status.to_owned())
            .or_insert_with(|| RefOr::Ref(Ref::from_response_name(name)));
    };
    if !is_open {
        add("401", "Unauthenticated");
        add("403", "Forbidden");
    }
    if names_something {
        add("404", "NotFound");
    }
    if is_write {
        add("413", "TooLarge");
        add("415", "NotJson");
    }
    if is_checked {
        add("422", "Unprocessable");
    }
    add("500", "Internal");
    add("503", "Unavailable");
    add("504", "TimedOut");
    if is_open {
        operation.security = Some(vec![utoipa::openapi::SecurityRequirement::default()]);
    }
}

/// Whether a parameter is an id in the path.
fn is_id(parameter: &Parameter) -> bool {
    let uuid = SchemaFormat::KnownFormat(KnownFormat::Uuid);
    parameter.parameter_in == ParameterIn::Path
        && matches!(&parameter.schema, Some(RefOr::T(Schema::Object(object))) if object.format == Some(uuid))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// The routes of the contract, with their methods.
    const ROUTES: &str = "
        get /api/v2/plugins
        get /api/v2/plugins/platform-tiles
        get /api/v2/plugins/status
        get /api/v2/plugins/migrations
        post /api/v2/plugins/reload
        post /api/v2/plugins/render_technical_asset_access_path
        get /api/v2/plugins/{plugin}
        get /api/v2/plugins/{plugin}/form
        get /api/v2/plugins/{plugin}/url
        get /api/v2/plugins/{plugin}/schema
        get /api/v2/plugins/{plugin}/icon
        post /api/v2/plugins/{plugin}/validate
        get post /api/v2/plugins/{plugin}/configurations
        get /api/v2/configurations
        get /api/v2/configurations/export
        get put patch delete /api/v2/configurations/{id}
        get /api/v2/configurations/{id}/history
        get post /api/v2/configuration/platforms
        get put delete /api/v2/configuration/platforms/{id}
        get post /api/v2/configuration/platforms/configs
        get put delete /api/v2/configuration/platforms/configs/{id}
        get post /api/v2/configuration/platforms/{id}/services
        get put delete /api/v2/configuration/platforms/{id}/services/{service_id}
        get post /api/v2/configuration/environments
        get put delete /api/v2/configuration/environments/{id}
        get post /api/v2/configuration/environments/{id}/configs
        get put delete /api/v2/configuration/environments/configs/{id}
        get /api/v2/configuration/environments/platforms/{platform_id}/services/{service_id}/config
        get /api/v2/configuration/environments/{id}/platforms/{platform_id}/config
        get /api/v2/configuration/environments/{id}/platforms/{platform_id}/services/{service_id}/config
        get post /api/v2/data_products
        get put delete /api/v2/data_products/{id}
        get /api/v2/cluster
        get /healthz
        get /readyz
        get /metrics
        get /api/openapi.json
    ";

    fn json() -> Value {
        serde_json::to_value(document()).expect("the document is JSON")
    }

    fn operations(document: &Value) -> Vec<(String, &Value)> {
        let paths = document["paths"].as_object().expect("paths");
        paths
            .iter()
            .flat_map(|(path, item)| {
                let item = item.as_object().expect("operations");
                item.iter()
                    .map(move |(method, operation)| (format!("{method} {path}"), operation))
            })
            .collect()
    }

    #[test]
    fn the_document_has_the_routes_of_the_contract_and_no_others() {
        let document = json();
        let found: BTreeSet<String> = operations(&document)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let wanted: BTreeSet<String> = ROUTES
            .lines()
            .flat_map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let (path, methods) = words.split_last().unwrap_or((&"", &[]));
                let route = |method: &&str| format!("{method} {path}");
                methods.iter().map(route).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn the_document_is_whole() {
        let document = json();
        assert_eq!(document["openapi"], "3.1.0");
        let mut ids = BTreeSet::new();
        for (name, operation) in operations(&document) {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(ids.insert(id.to_owned()), "{id} stands twice");
            let responses = operation["responses"].as_object().expect("responses");
            assert!(
                responses.keys().any(|status| status.starts_with('2')),
                "{name}"
            );
            assert!(responses.contains_key("500"), "{name}");
            assert_eq!(
                operation["tags"].as_array().map(Vec::len),
                Some(1),
                "{name}"
            );
            assert!(
                responses.contains_key("404") || !name.contains('{'),
                "{name}"
            );
            assert!(
                responses.contains_key("422") || operation.get("requestBody").is_none(),
                "{name}"
            );
            let in_path = name.matches('{').count();
            let named = operation["parameters"].as_array().map_or(0, |parameters| {
                let in_path = |parameter: &&Value| parameter["in"] == "path";
                parameters.iter().filter(in_path).count()
            });
            assert_eq!(in_path, named, "{name}");
        }
        let mut refs = BTreeSet::new();
        collect_refs(&document, &mut refs);
        for reference in refs {
            let pointer = reference.trim_start_matches('#');
            assert!(
                document.pointer(pointer).is_some(),
                "{reference} leads nowhere"
            );
        }
    }

    fn collect_refs(value: &Value, refs: &mut BTreeSet<String>) {
        match value {
            Value::Object(entries) => {
                if let Some(Value::String(reference)) = entries.get("$ref") {
                    refs.insert(reference.clone());
                }
                entries.values().for_each(|value| collect_refs(value, refs));
            }
            Value::Array(items) => items.iter().for_each(|item| collect_refs(item, refs)),
            _ => {}
        }
    }
}
